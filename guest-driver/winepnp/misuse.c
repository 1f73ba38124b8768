// SPDX-License-Identifier: MIT
// What a driver did for which Windows promises nothing: told on the console, and counted.
#include "winepnp.h"

static volatile LONG g_misuseCount;

// PASSIVE_LEVEL, any thread.
VOID WpTellMisuse(PCSTR misuse)
{
    (void)InterlockedIncrement(&g_misuseCount);
    if (WpNtdll.WineDbgOutput != NULL)
    {
        CHAR line[160] = "winepnp: misuse: ";
        (void)strncat(line, misuse, sizeof line - strlen(line) - sizeof "\n");
        (void)strcat(line, "\n");
        (void)WpNtdll.WineDbgOutput(line); // in one, so that no other line comes between
    }
}

// Any IRQL, any thread.
ULONG WpCountMisuses(VOID)
{
    return (ULONG)g_misuseCount;
}
