// Counts what the calling thread takes from the heap.
//
// The test program defines `malloc` and its kin itself and hands each call on to glibc, which exports its
// own under the names used here. Every Swift object is made by `malloc` (swift_slowAlloc in
// stdlib/public/runtime/Heap.cpp of the Swift sources). The runtime's own hook, `_swift_allocObject`, is no
// use: to set it makes Swift 6.3 go through other retain and release functions too, and these crashed.
#ifndef JSR_ALLOCATION_COUNTER_H
#define JSR_ALLOCATION_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

/// Whether anything is counted: a sanitizer has an allocator of its own.
bool allocation_counter_is_available(void);

/// Starts to count on this thread, from zero.
void allocation_counter_start(void);

/// Stops counting on this thread; returns how many allocations there were since the start.
int64_t allocation_counter_stop(void);

#endif
