// Loaded before everything else into programs that are built with the thread sanitizer: tells it of
// synchronization that happens where it cannot look. Without this it calls every use of a contended Mutex or of
// a continuation a race.
//
// 1. Swift's runtime tells the sanitizer what its tasks and continuations order, once it has been told that there
//    is one. On Linux that call (__tsan_on_initialize) ends in the sanitizer's own empty default, which is linked
//    into the program. It is made up for here.
// 2. Synchronization.Mutex locks and unlocks with atomics that are compiled into the program, and seen. Under
//    contention it calls its library (stdlib/public/Synchronization/Mutex/LinuxImpl.swift), which spins, and then
//    has the kernel hand the lock over: neither is seen. Those calls come here first.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SWIFTCALL __attribute__((swiftcall))
#define SELF __attribute__((swift_context))
#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define TRY_LOCK "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

static void (*acquire)(void *);
static void (*release)(void *);
typedef SWIFTCALL void lock_function(uint32_t thread, SELF void *mutex);
typedef SWIFTCALL bool try_lock_function(SELF void *mutex);
typedef SWIFTCALL void unlock_function(SELF void *mutex);
static lock_function *next_lock;
static try_lock_function *next_try_lock;
static unlock_function *next_unlock;

__attribute__((constructor)) static void initialize(void) {
  acquire = (void (*)(void *))dlsym(RTLD_DEFAULT, "__tsan_acquire");
  release = (void (*)(void *))dlsym(RTLD_DEFAULT, "__tsan_release");
  next_lock = dlsym(RTLD_NEXT, LOCK);
  next_try_lock = dlsym(RTLD_NEXT, TRY_LOCK);
  next_unlock = dlsym(RTLD_NEXT, UNLOCK);
  void *core = acquire && release ? dlopen("libswiftCore.so", RTLD_LAZY | RTLD_NOLOAD) : NULL;
  void (*on_initialize)(void) = core ? (void (*)(void))dlsym(core, "__tsan_on_initialize") : NULL;
  if (on_initialize) on_initialize();
}

SWIFTCALL void lock(uint32_t thread, SELF void *mutex) __asm__(LOCK);
SWIFTCALL void lock(uint32_t thread, SELF void *mutex) {
  next_lock(thread, mutex);
  if (acquire) acquire(mutex);
}

SWIFTCALL bool try_lock(SELF void *mutex) __asm__(TRY_LOCK);
SWIFTCALL bool try_lock(SELF void *mutex) {
  bool locked = next_try_lock(mutex);
  if (locked && acquire) acquire(mutex);
  return locked;
}

SWIFTCALL void unlock(SELF void *mutex) __asm__(UNLOCK);
SWIFTCALL void unlock(SELF void *mutex) {
  if (release) release(mutex);
  next_unlock(mutex);
}
