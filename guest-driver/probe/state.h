// SPDX-License-Identifier: MIT
// What the probe asks the operating system.
#ifndef HPPROBE_STATE_H
#define HPPROBE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SYSTEM_STATE
{
    uint32_t activeProcessors; // over all processor groups
    uint64_t memoryBytes;      // physical memory the system uses
    uint64_t bootTime100ns;    // 100 ns since 1601-01-01 UTC
    char bootId[64];           // another one after each boot
} SYSTEM_STATE;

// Each returns false after it has said on stderr what it could not read.
bool QueryWindowsState(SYSTEM_STATE *state);
bool QueryWineState(SYSTEM_STATE *state);

#endif
