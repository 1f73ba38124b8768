// SPDX-License-Identifier: MIT
// The lock under which callbacks run. Whoever has held it once knows that no callback of another thread is in flight.
#include "winepnp.h"

// Made of an event, because Wine's KMUTEX lets a second thread in and FAST_MUTEX is not recursive and raises the IRQL.
static struct
{
    KEVENT Free;
    HANDLE volatile Owner; // thread id
    ULONG Depth;           // the owner's
} g_callbackLock;

// PASSIVE_LEVEL, DriverEntry.
VOID WpInitializeNotify(VOID)
{
    KeInitializeEvent(&g_callbackLock.Free, SynchronizationEvent, TRUE);
}

// PASSIVE_LEVEL, any thread, no list's lock held.
VOID WpEnterCallback(VOID)
{
    if (g_callbackLock.Owner != PsGetCurrentThreadId())
    {
        (void)KeWaitForSingleObject(&g_callbackLock.Free, Executive, KernelMode, FALSE, NULL);
        g_callbackLock.Owner = PsGetCurrentThreadId();
    }
    g_callbackLock.Depth += 1;
}

// PASSIVE_LEVEL, the thread that entered.
VOID WpLeaveCallback(VOID)
{
    g_callbackLock.Depth -= 1;
    if (g_callbackLock.Depth == 0)
    {
        g_callbackLock.Owner = NULL;
        (void)KeSetEvent(&g_callbackLock.Free, IO_NO_INCREMENT, FALSE);
    }
}
