// SPDX-License-Identifier: MIT
// pnptest.sys: a driver that uses the hot-add API in every way, right and wrong, as its parameter Behaviour says.
#pragma once

#include <ntddk.h>

// Bits of Parameters\Behaviour; tests/driver/test_winepnp.py has the same names.
enum
{
    PT_INCLUDE_EXISTING = 0x001,    // register with the flag of that name
    PT_SLOW = 0x002,                // the callback takes a while
    PT_UNREGISTER_INSIDE = 0x004,   // the callback unregisters itself
    PT_LEAK = 0x008,                // unload leaves the registrations behind
    PT_OBSOLETE_UNREGISTER = 0x010, // unload uses the call without Ex
    PT_SYNCHRONOUS = 0x020,         // register for processor changes as well
    PT_ADD_EXISTING = 0x040,        // ... with the flag of that name
    PT_REFUSE = 0x080,              // ... and refuse processor PT_REFUSED_PROCESSOR
    PT_WITNESSES = 0x1000,          // ... between two callbacks that refuse none
    PT_BY_NAME = 0x100,             // look the routines up instead of importing them
    PT_MISUSE = 0x200,              // register with wrong arguments first
    PT_FAIL = 0x400,                // the callback returns a failure
    PT_FAIL_ENTRY = 0x800,          // DriverEntry does
    PT_HOLD = 0x2000,               // the callback stays until there is a file C:\pnptest.go
};

enum
{
    PT_REFUSED_PROCESSOR = 2,
};

// log.c: one line to C:\pnptest.log.
VOID PtLog(PCSTR format, ...);

// figures.c: logs what the system says of itself.
VOID PtLogFigures(VOID);

// api.c: the hot-add API, imported or looked up.
typedef struct _PT_API
{
    NTSTATUS(NTAPI *Register)
    (IO_NOTIFICATION_EVENT_CATEGORY category, ULONG flags, PVOID data, PDRIVER_OBJECT driverObject,
     PDRIVER_NOTIFICATION_CALLBACK_ROUTINE callback, PVOID context, PVOID *entry);
    NTSTATUS(NTAPI *Unregister)(PVOID entry);
    NTSTATUS(NTAPI *UnregisterEx)(PVOID entry);
    PVOID(NTAPI *RegisterProcessor)(PPROCESSOR_CALLBACK_FUNCTION callback, PVOID context, ULONG flags);
    VOID(NTAPI *DeregisterProcessor)(PVOID handle);
} PT_API;

VOID PtFillApi(PT_API *api, BOOLEAN byName);
