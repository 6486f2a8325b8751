// What the library itself uses, and does not show.

#ifndef CJSR_LAST_ERROR_H
#define CJSR_LAST_ERROR_H

/// What jsr_last_error says from now on in the calling thread.
void cjsr_set_last_error(const char *message);

#endif
