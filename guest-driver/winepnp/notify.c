// SPDX-License-Identifier: MIT
// The locks under which callbacks run. Whoever has held one once knows that no callback under it is in flight.
#include "winepnp.h"

// PASSIVE_LEVEL. Made of an event, because Wine's KMUTEX lets a second thread in and FAST_MUTEX is not recursive and
// raises the IRQL.
VOID WpInitializeLock(WP_CALLBACK_LOCK *lock)
{
    KeInitializeEvent(&lock->Free, SynchronizationEvent, TRUE);
    lock->Owner = NULL;
    lock->Depth = 0;
}

// PASSIVE_LEVEL, any thread, no list's lock held.
VOID WpEnterCallback(WP_CALLBACK_LOCK *lock)
{
    if (lock->Owner != PsGetCurrentThreadId())
    {
        (void)KeWaitForSingleObject(&lock->Free, Executive, KernelMode, FALSE, NULL);
        lock->Owner = PsGetCurrentThreadId();
    }
    lock->Depth += 1;
}

// PASSIVE_LEVEL, the thread that entered.
VOID WpLeaveCallback(WP_CALLBACK_LOCK *lock)
{
    lock->Depth -= 1;
    if (lock->Depth == 0)
    {
        lock->Owner = NULL;
        (void)KeSetEvent(&lock->Free, IO_NO_INCREMENT, FALSE);
    }
}
