#include "last_error.h"

#include "jsr.h"

#include <string.h>

// Swift has no variables of a thread.
static _Thread_local char text[512];

const char *jsr_last_error(void) { return text; }

void cjsr_set_last_error(const char *message) {
  size_t length = strlen(message);
  if (length >= sizeof text) {
    length = sizeof text - 1;
    // Not in the middle of a character of UTF-8.
    while (length > 0 && ((unsigned char)message[length] & 0xc0) == 0x80) length--;
  }
  memcpy(text, message, length);
  text[length] = 0;
  for (char *place = text; *place; place++) {
    if (*place == '\n') *place = ' ';
  }
}
