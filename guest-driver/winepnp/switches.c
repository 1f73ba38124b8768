// SPDX-License-Identifier: MIT
// In which ways one Windows is not like another, for tests to choose.
#include "winepnp.h"

static volatile LONG g_on[WINEPNP_SWITCHES];

// PASSIVE_LEVEL, worker; the number is one.
VOID WpSetSwitch(const WINEPNP_SWITCH *change)
{
    (void)InterlockedExchange(&g_on[change->Number], change->On != 0);
}

// Any IRQL, any thread.
BOOLEAN WpIsOn(ULONG number)
{
    return g_on[number] != 0;
}
