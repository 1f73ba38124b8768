// SPDX-License-Identifier: MIT
// Routines that not every Windows has, found when they are wanted.
#ifndef HPPROBE_ROUTINE_H
#define HPPROBE_ROUTINE_H

#include <windows.h>

// By way of void (*)(void), which compilers let become any routine. NULL where the system has none of that name.
static inline void (*FindRoutine(const wchar_t *library, const char *name))(void)
{
    HMODULE module = LoadLibraryExW(library, NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
    return module == NULL ? NULL : (void (*)(void))GetProcAddress(module, name);
}

#endif
