// SPDX-License-Identifier: MIT
// The lock under which callbacks run. Whoever has held it once knows that no callback of another thread is in flight.
#include "winepnp.h"

static KMUTEX g_callbackLock;

// PASSIVE_LEVEL, DriverEntry.
VOID WpInitializeNotify(VOID)
{
    KeInitializeMutex(&g_callbackLock, 0);
}

// PASSIVE_LEVEL, any thread, any lock but the lists' own.
VOID WpEnterCallback(VOID)
{
    (void)KeWaitForSingleObject(&g_callbackLock, Executive, KernelMode, FALSE, NULL);
}

// PASSIVE_LEVEL, the thread that entered.
VOID WpLeaveCallback(VOID)
{
    (void)KeReleaseMutex(&g_callbackLock, FALSE);
}
