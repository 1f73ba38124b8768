// SPDX-License-Identifier: MIT
// Has the system write what it keeps in memory to its disk, so that a hard reset loses none of it.
#ifndef HPPROBE_SAVE_H
#define HPPROBE_SAVE_H

#include <stdbool.h>

// Each returns false after it has said on stderr what went wrong.
bool SaveWindows(void); // registry and files
bool SaveWine(void);    // the machine's registry; its files are Linux's to write

#endif
