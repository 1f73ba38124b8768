// SPDX-License-Identifier: MIT
// What the guest's PnP manager tells programs of device interfaces that come and go, as long as this one runs.
#ifndef HPPROBE_TOLD_H
#define HPPROBE_TOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "announce.h"

enum
{
    TOLD_LINK_BYTES = 1024,
    MOST_TOLD = 1024 // that wait to be asked for
};

typedef struct TOLD
{
    uint64_t number; // from 1 on, without gaps
    INTERFACE_CLASS interfaceClass;
    bool arrival; // else removal
    int64_t qpc;
    char link[TOLD_LINK_BYTES]; // UTF-8, as it was told
} TOLD;

// Each for one system. Listening begins before this returns; false if the system tells programs nothing.
bool ListenOnWindows(void);
bool ListenOnWine(void);
// The next that was not taken yet; false if there is none.
bool TakeToldOnWindows(TOLD *told);
bool TakeToldOnWine(TOLD *told);

#endif
