// SPDX-License-Identifier: MIT
// The same calls on Windows and under Wine, which answers some of them; what is not answered is null.
#include "facts.h"

#include <cpuid.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <windows.h>

#include "announce.h"
#include "json.h"
#include "routine.h"

static const char CURRENT_VERSION[] = "SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion";
static const char DEVICE_GUARD[] = "SYSTEM\\CurrentControlSet\\Control\\DeviceGuard";
static const char HVCI[] = "SYSTEM\\CurrentControlSet\\Control\\DeviceGuard\\Scenarios\\"
                           "HypervisorEnforcedCodeIntegrity";
static const char TIME_ZONE[] = "SYSTEM\\CurrentControlSet\\Control\\TimeZoneInformation";

// KUSER_SHARED_DATA, which every process sees here: ntddk, ns-ntddk-kuser_shared_data.
static const ULONG_PTR SHARED_DATA = 0x7FFE0000;

// "ACPI" with its first letter on top, and "SRAT" as the bytes of the table are in memory: GetSystemFirmwareTable.
static const DWORD ACPI_PROVIDER = 0x41435049;
static const DWORD SRAT_TABLE = 0x54415253;

enum
{
    SHARED_EXPIRATION_DATE = 0x2C8,
    SHARED_FLAGS = 0x2F0,
    FLAG_DYNAMIC_PROCESSOR = 1 << 5, // DbgDynProcessorEnabled
    SYSTEM_CODE_INTEGRITY_INFORMATION = 103,
    TEXT_BYTES = 256,
    TABLE_BYTES = 65536,
    CR_OK = 0,              // CR_SUCCESS
    INTERFACES_PRESENT = 0, // CM_GET_DEVICE_INTERFACE_LIST_PRESENT
};

typedef struct CODE_INTEGRITY
{
    ULONG length;
    ULONG options; // CODEINTEGRITY_OPTION_TESTSIGN 2, CODEINTEGRITY_OPTION_HVCI_KMCI_ENABLED 0x400
} CODE_INTEGRITY;

typedef LONG(NTAPI *RTL_GET_VERSION)(OSVERSIONINFOEXW *version);
typedef LONG(NTAPI *NT_QUERY_SYSTEM_INFORMATION)(ULONG kind, PVOID answer, ULONG size, PULONG length);
typedef HRESULT(WINAPI *SL_GET_DWORD)(PCWSTR name, DWORD *value);
typedef DWORD(WINAPI *GET_INTERFACE_LIST_SIZE)(PULONG size, GUID *interfaceClass, PSTR device, ULONG flags);
typedef DWORD(WINAPI *GET_INTERFACE_LIST)(GUID *interfaceClass, PSTR device, PSTR list, ULONG size, ULONG flags);

static void PrintNumber(const char *key, bool known, uint64_t value)
{
    printf(",\"%s\":", key);
    if (known)
    {
        printf("%" PRIu64, value);
    }
    else
    {
        printf("null");
    }
}

static void PrintRegistryNumber(const char *key, const char *path, const char *name)
{
    DWORD value = 0;
    DWORD size = sizeof value;
    const LSTATUS status = RegGetValueA(HKEY_LOCAL_MACHINE, path, name, RRF_RT_REG_DWORD, NULL, &value, &size);
    PrintNumber(key, status == ERROR_SUCCESS, value);
}

static void PrintRegistryText(const char *key, const char *path, const char *name)
{
    char text[TEXT_BYTES];
    DWORD size = sizeof text;
    printf(",\"%s\":", key);
    if (RegGetValueA(HKEY_LOCAL_MACHINE, path, name, RRF_RT_REG_SZ, NULL, text, &size) == ERROR_SUCCESS)
    {
        PrintString(text);
    }
    else
    {
        printf("null");
    }
}

static void PrintVersion(void)
{
    RTL_GET_VERSION query = (RTL_GET_VERSION)FindRoutine(L"ntdll.dll", "RtlGetVersion");
    OSVERSIONINFOEXW version = {.dwOSVersionInfoSize = sizeof version};
    const bool known = query != NULL && query(&version) >= 0;
    PrintNumber("windows_major", known, version.dwMajorVersion);
    PrintNumber("windows_minor", known, version.dwMinorVersion);
    PrintNumber("windows_build", known, version.dwBuildNumber);
    PrintRegistryNumber("windows_revision", CURRENT_VERSION, "UBR");
    PrintNumber("product_type", known, version.wProductType); // 1 workstation, 2 domain controller, 3 server
    PrintRegistryText("product_name", CURRENT_VERSION, "ProductName");
    PrintRegistryText("edition", CURRENT_VERSION, "EditionID");
    PrintRegistryText("installation_type", CURRENT_VERSION, "InstallationType");
}

static void PrintSharedData(void)
{
    const volatile ULONG *flags = (const volatile ULONG *)(SHARED_DATA + SHARED_FLAGS);
    const volatile int64_t *expires = (const volatile int64_t *)(SHARED_DATA + SHARED_EXPIRATION_DATE);
    printf(",\"dynamic_partitioning\":%s", (*flags & FLAG_DYNAMIC_PROCESSOR) != 0 ? "true" : "false");
    PrintNumber("expires_100ns", *expires != 0, (uint64_t)*expires); // of an evaluation, since 1601 in UTC
}

static void PrintCodeIntegrity(void)
{
    NT_QUERY_SYSTEM_INFORMATION query =
        (NT_QUERY_SYSTEM_INFORMATION)FindRoutine(L"ntdll.dll", "NtQuerySystemInformation");
    CODE_INTEGRITY answer = {.length = sizeof answer};
    const bool known = query != NULL && query(SYSTEM_CODE_INTEGRITY_INFORMATION, &answer, sizeof answer, NULL) >= 0;
    PrintNumber("code_integrity", known, answer.options);
    PrintRegistryNumber("vbs_enabled", DEVICE_GUARD, "EnableVirtualizationBasedSecurity");
    PrintRegistryNumber("hvci_enabled", HVCI, "Enabled");
}

// Policies by which the kernel decides; their names are those of its licence.
static void PrintLicence(void)
{
    static const char *const names[] = {
        "Kernel-VirtualDynamicPartitioningSupported",
        "Kernel-DynamicPartitioningSupported",
        "Kernel-VmPhysicalMemoryAddAllowed",
        "Kernel-PhysicalMemoryAddAllowed",
        "Kernel-RegisteredProcessors",
        "Kernel-WindowsMaxMemAllowedx64"};
    SL_GET_DWORD query = (SL_GET_DWORD)FindRoutine(L"slc.dll", "SLGetWindowsInformationDWORD");
    printf(",\"licence\":{\"read\":%s", query != NULL ? "true" : "false");
    for (size_t index = 0; index < sizeof names / sizeof names[0]; index++)
    {
        wchar_t name[TEXT_BYTES];
        DWORD value = 0;
        for (size_t unit = 0; unit <= strlen(names[index]); unit++)
        {
            name[unit] = (wchar_t)names[index][unit];
        }
        PrintNumber(names[index], query != NULL && SUCCEEDED(query(name, &value)), value);
    }
    printf("}");
}

// What the processor says of a hypervisor, by the leaves that all of them have.
static void PrintHypervisor(void)
{
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    __cpuid(1, eax, ebx, ecx, edx);
    const bool present = (ecx & 1U << 31) != 0;
    printf(",\"hypervisor\":");
    if (!present)
    {
        printf("null");
        PrintNumber("hypervisor_features_edx", false, 0);
        return;
    }
    char vendor[13] = "";
    __cpuid(0x40000000, eax, ebx, ecx, edx);
    (void)memcpy(vendor, &ebx, sizeof ebx);
    (void)memcpy(vendor + 4, &ecx, sizeof ecx);
    (void)memcpy(vendor + 8, &edx, sizeof edx);
    PrintString(vendor);
    __cpuid(0x40000003, eax, ebx, ecx, edx); // EDX bit 3: processors can be added, of Hyper-V's interface
    PrintNumber("hypervisor_features_edx", true, edx);
}

// ACPI 6.5, 5.2.16.2: how much of the SRAT's memory is hot pluggable. Windows adds no memory without that table.
static void PrintSrat(void)
{
    static unsigned char table[TABLE_BYTES];
    enum
    {
        HEADER_BYTES = 48,
        MEMORY_AFFINITY = 1,
        MEMORY_AFFINITY_BYTES = 40,
        LENGTH_OFFSET = 16,
        FLAGS_OFFSET = 28,
        ENABLED_AND_HOT_PLUGGABLE = 3
    };
    const UINT size = GetSystemFirmwareTable(ACPI_PROVIDER, SRAT_TABLE, table, sizeof table);
    uint64_t bytes = 0;
    for (UINT at = HEADER_BYTES; size <= sizeof table && at + 2 <= size && table[at + 1] >= 2; at += table[at + 1])
    {
        if (table[at] == MEMORY_AFFINITY && at + MEMORY_AFFINITY_BYTES <= size)
        {
            uint64_t length = 0;
            uint32_t flags = 0;
            (void)memcpy(&length, &table[at + LENGTH_OFFSET], sizeof length);
            (void)memcpy(&flags, &table[at + FLAGS_OFFSET], sizeof flags);
            bytes += (flags & ENABLED_AND_HOT_PLUGGABLE) == ENABLED_AND_HOT_PLUGGABLE ? length : 0;
        }
    }
    PrintNumber("srat_hot_pluggable_bytes", size >= HEADER_BYTES && size <= sizeof table, bytes);
}

static void PrintInterfaces(INTERFACE_CLASS interfaceClass)
{
    static char list[TABLE_BYTES];
    GET_INTERFACE_LIST_SIZE querySize =
        (GET_INTERFACE_LIST_SIZE)FindRoutine(L"cfgmgr32.dll", "CM_Get_Device_Interface_List_SizeA");
    GET_INTERFACE_LIST query = (GET_INTERFACE_LIST)FindRoutine(L"cfgmgr32.dll", "CM_Get_Device_Interface_ListA");
    GUID guid = *InterfaceClassGuid(interfaceClass);
    ULONG size = 0;
    printf("%s\"%s\":", interfaceClass == CLASS_PROCESSOR ? "" : ",", InterfaceClassWord(interfaceClass));
    if (query == NULL || querySize == NULL || querySize(&size, &guid, NULL, INTERFACES_PRESENT) != CR_OK ||
        size > sizeof list || query(&guid, NULL, list, size, INTERFACES_PRESENT) != CR_OK)
    {
        printf("null");
        return;
    }
    const char *separator = "[";
    for (const char *link = list; *link != '\0'; link += strlen(link) + 1)
    {
        printf("%s", separator);
        PrintString(link);
        separator = ",";
    }
    printf("%s]", *separator == '[' ? "[" : "");
}

static void PrintPlace(void)
{
    ULARGE_INTEGER freeBytes = {0};
    const bool known = GetDiskFreeSpaceExA("C:\\", &freeBytes, NULL, NULL);
    PrintNumber("free_bytes", known, freeBytes.QuadPart);
    TIME_ZONE_INFORMATION zone = {0};
    const DWORD season = GetTimeZoneInformation(&zone);
    printf(",\"utc_bias_minutes\":%ld", season == TIME_ZONE_ID_INVALID ? 0 : zone.Bias);
    PrintRegistryNumber("real_time_is_universal", TIME_ZONE, "RealTimeIsUniversal");
    PrintRegistryText("ssh_default_shell", "SOFTWARE\\OpenSSH", "DefaultShell");
}

bool PrintFacts(bool wine)
{
    printf("{\"format\":1,\"platform\":\"%s\"", wine ? "wine" : "windows");
    PrintVersion();
    PrintSharedData();
    PrintCodeIntegrity();
    PrintLicence();
    PrintHypervisor();
    PrintSrat();
    PrintPlace();
    printf(",\"interfaces\":{");
    PrintInterfaces(CLASS_PROCESSOR);
    PrintInterfaces(CLASS_MEMORY);
    printf("}}\n");
    return fflush(stdout) == 0;
}
