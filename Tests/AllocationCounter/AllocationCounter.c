#include "AllocationCounter.h"

#include <errno.h>
#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define ALLOCATOR_IS_TAKEN 1
#endif
#endif

static __thread bool counting;
static __thread int64_t count;

#ifdef ALLOCATOR_IS_TAKEN

bool allocation_counter_is_available(void) { return false; }

#else

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t number, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

bool allocation_counter_is_available(void) { return true; }

void *malloc(size_t size) {
  if (counting) count += 1;
  return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
  if (counting) count += 1;
  return __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size) {
  if (counting) count += 1;
  return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  if (counting) count += 1;
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  if (counting) count += 1;
  if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) return EINVAL;
  void *result = __libc_memalign(alignment, size);
  if (result == NULL) return ENOMEM;
  *memory = result;
  return 0;
}

#endif

void allocation_counter_start(void) {
  count = 0;
  counting = true;
}

int64_t allocation_counter_stop(void) {
  counting = false;
  return count;
}
