// SPDX-License-Identifier: MIT
// What pnpfeed.exe asks of winepnp.sys on \\.\winepnp. Include <ntddk.h> or <windows.h> and <winioctl.h> first.
#pragma once

enum
{
    WINEPNP_LINK_CHARACTERS = 256,  // of a symbolic link, without a terminator
    WINEPNP_IMPORT_CHARACTERS = 80, // of an import's name, with its terminator
};

enum
{
    WINEPNP_IOCTL_SYSTEM = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_EXISTING = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_ARRIVE = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_REMOVE = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_DELIVER = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_PROCESSOR = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_FAIL = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x807, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_STATE = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x808, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_SWITCH = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x80A, METHOD_BUFFERED, FILE_ANY_ACCESS),
    WINEPNP_IOCTL_TOLD = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x809, METHOD_BUFFERED, FILE_ANY_ACCESS),
};

// SYSTEM: the figures that drivers are told from now on.
typedef struct _WINEPNP_SYSTEM
{
    ULONG ActiveProcessors;
    ULONG MaximumProcessors;
    ULONG64 MemoryBytes;
} WINEPNP_SYSTEM;

// EXISTING, ARRIVE, REMOVE and DELIVER; the event is used by DELIVER only.
typedef struct _WINEPNP_NOTICE
{
    GUID ClassGuid;
    GUID EventGuid;
    ULONG LinkCharacters;
    WCHAR Link[WINEPNP_LINK_CHARACTERS];
} WINEPNP_NOTICE;

// PROCESSOR: one call of every synchronous processor callback.
typedef struct _WINEPNP_PROCESSOR
{
    ULONG State; // a KE_PROCESSOR_CHANGE_NOTIFY_STATE
    ULONG NtNumber;
    LONG Status;
} WINEPNP_PROCESSOR;

// FAIL: the next image's import of that name returns Value, after Passes calls that go through. No name: forget it.
typedef struct _WINEPNP_FAIL
{
    ULONG64 Value;
    LONG64 Passes;
    CHAR Import[WINEPNP_IMPORT_CHARACTERS];
} WINEPNP_FAIL;

// SWITCH: one of the ways in which one Windows is not like another; all are off at first.
enum
{
    WINEPNP_SWITCH_NEWER, // drivers find, by name, what only Windows 10 2004, Server 2022 and later have
    WINEPNP_SWITCH_TWICE, // a registration that includes what exists is told of each interface twice, as documented
    WINEPNP_SWITCHES
};

typedef struct _WINEPNP_SWITCH
{
    ULONG Number;
    ULONG On;
} WINEPNP_SWITCH;

// The answer to ARRIVE, REMOVE, DELIVER and PROCESSOR.
typedef struct _WINEPNP_CALLED
{
    ULONG Callbacks;
    LONG FirstFailure; // the first status that was not a success, else 0
} WINEPNP_CALLED;

// The answer to TOLD, which brings a ULONG64: the number after which drivers were told of that interface.
typedef struct _WINEPNP_TOLD
{
    ULONG64 Number; // from 1 on, without gaps; 0: nothing was told after that
    ULONG64 Last;   // of all
    LONG64 Qpc;     // just before the first driver was told
    WINEPNP_NOTICE Notice;
} WINEPNP_TOLD;

// The answer to STATE.
typedef struct _WINEPNP_STATE
{
    ULONG Registrations;
    ULONG Synchronous;
    ULONG Interfaces;
    ULONG FailedImports; // since winepnp was loaded
    ULONG Misuses;       // the same
    ULONG MemoryAsked;   // how often memory was asked for in a processor callback, where Windows may hold Mm's lock
} WINEPNP_STATE;
