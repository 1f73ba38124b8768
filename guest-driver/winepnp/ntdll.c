// SPDX-License-Identifier: MIT
// Routines of ntdll. Under Wine a driver is a module of a user process and these are what governs it, but an
// import from ntdll would make Wine take the driver for a DLL, so they are looked up.
#include "winepnp.h"
#include <ntimage.h>

// What precedes BaseDllName in every entry of the loader's list.
typedef struct _WP_LOADER_ENTRY
{
    LIST_ENTRY LoadOrderLinks;
    LIST_ENTRY MemoryOrderLinks;
    LIST_ENTRY InitializationOrderLinks;
    PUCHAR DllBase;
    PVOID EntryPoint;
    ULONG SizeOfImage;
    UNICODE_STRING FullDllName;
    UNICODE_STRING BaseDllName;
} WP_LOADER_ENTRY;

WP_NTDLL WpNtdll;

// PASSIVE_LEVEL, DriverEntry.
static PUCHAR WpFindNtdll(PDRIVER_OBJECT driverObject)
{
    static const ULONG moduleLimit = 1000;
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"ntdll.dll");
    const WP_LOADER_ENTRY *entry = driverObject->DriverSection;
    // Backwards from ourselves, the newest: ntdll is loaded first, so it comes before the list's head.
    for (ULONG index = 0; index < moduleLimit; index++)
    {
        if (RtlEqualUnicodeString(&entry->BaseDllName, &name, TRUE))
        {
            return entry->DllBase;
        }
        entry = CONTAINING_RECORD(entry->LoadOrderLinks.Blink, WP_LOADER_ENTRY, LoadOrderLinks);
    }
    return NULL;
}

// PASSIVE_LEVEL, DriverEntry.
static PVOID WpFindExport(PUCHAR base, PCSTR name)
{
    const IMAGE_NT_HEADERS *headers = (const IMAGE_NT_HEADERS *)(base + ((const IMAGE_DOS_HEADER *)base)->e_lfanew);
    const ULONG address = headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_EXPORT].VirtualAddress;
    const IMAGE_EXPORT_DIRECTORY *exports = (const IMAGE_EXPORT_DIRECTORY *)(base + address);
    const ULONG *names = (const ULONG *)(base + exports->AddressOfNames);
    const USHORT *ordinals = (const USHORT *)(base + exports->AddressOfNameOrdinals);
    const ULONG *functions = (const ULONG *)(base + exports->AddressOfFunctions);
    for (ULONG index = 0; index < exports->NumberOfNames; index++)
    {
        if (strcmp((PCSTR)(base + names[index]), name) == 0)
        {
            return base + functions[ordinals[index]];
        }
    }
    return NULL;
}

// PASSIVE_LEVEL, DriverEntry. Refuses where it does not belong: on Windows drivers live in the upper half.
NTSTATUS WpInitializeNtdll(PDRIVER_OBJECT driverObject)
{
    if ((LONG_PTR)driverObject->DriverStart < 0)
    {
        return STATUS_NOT_SUPPORTED;
    }
    PUCHAR base = WpFindNtdll(driverObject);
    if (base == NULL)
    {
        return STATUS_PROCEDURE_NOT_FOUND;
    }
    WpNtdll.LdrAddRefDll = WpFindExport(base, "LdrAddRefDll");
    WpNtdll.LdrUnloadDll = WpFindExport(base, "LdrUnloadDll");
    WpNtdll.NtProtectVirtualMemory = WpFindExport(base, "NtProtectVirtualMemory");
    WpNtdll.WineDbgOutput = WpFindExport(base, "__wine_dbg_output");
    if (WpNtdll.LdrAddRefDll == NULL || WpNtdll.LdrUnloadDll == NULL || WpNtdll.NtProtectVirtualMemory == NULL)
    {
        return STATUS_PROCEDURE_NOT_FOUND;
    }
    return STATUS_SUCCESS;
}
