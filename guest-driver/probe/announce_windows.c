// SPDX-License-Identifier: MIT
// Announcing on Windows 8 and Server 2012 and later, by the Software Device API:
// https://learn.microsoft.com/windows/win32/api/swdevice/. A device lives as long as this process.
#include "announce.h"

#include <string.h>

#include "routine.h"

// What <swdevice.h> and <swdevicedef.h> declare; mingw-w64 has neither.
DECLARE_HANDLE(HSWDEVICE);

typedef struct SW_DEVICE_CREATE_INFO
{
    ULONG cbSize;
    PCWSTR pszInstanceId;
    PCWSTR pszzHardwareIds;
    PCWSTR pszzCompatibleIds;
    const GUID *pContainerId;
    ULONG CapabilityFlags;
    PCWSTR pszDeviceDescription;
    PCWSTR pszDeviceLocation;
    const SECURITY_DESCRIPTOR *pSecurityDescriptor;
} SW_DEVICE_CREATE_INFO;

// Of SW_DEVICE_CAPABILITIES. DriverRequired (8) must not be set: an interface is enabled without a driver then.
enum
{
    SW_DEVICE_SILENT_INSTALL = 2,
    SW_DEVICE_NO_DISPLAY_IN_UI = 4,
};

typedef VOID(WINAPI *SW_DEVICE_CREATE_CALLBACK)(
    HSWDEVICE device, HRESULT result, PVOID context, PCWSTR deviceInstanceId);

// Their arrays of DEVPROPERTY are always empty here.
typedef HRESULT(WINAPI *SW_DEVICE_CREATE)(
    PCWSTR enumerator, PCWSTR parent, const SW_DEVICE_CREATE_INFO *info, ULONG propertyCount, const void *properties,
    SW_DEVICE_CREATE_CALLBACK callback, PVOID context, HSWDEVICE *device);
typedef VOID(WINAPI *SW_DEVICE_CLOSE)(HSWDEVICE device);
typedef HRESULT(WINAPI *SW_DEVICE_INTERFACE_REGISTER)(
    HSWDEVICE device, const GUID *interfaceClass, PCWSTR reference, ULONG propertyCount, const void *properties,
    BOOL enabled, PWSTR *interfaceId);
typedef HRESULT(WINAPI *SW_DEVICE_INTERFACE_SET_STATE)(HSWDEVICE device, PCWSTR interfaceId, BOOL enabled);

static struct
{
    SW_DEVICE_CREATE create;
    SW_DEVICE_CLOSE close;
    SW_DEVICE_INTERFACE_REGISTER registerInterface;
    SW_DEVICE_INTERFACE_SET_STATE setState;
} g_api;

typedef struct DEVICE_INTERFACE
{
    PWSTR id; // NULL: not registered yet
    bool enabled;
} DEVICE_INTERFACE;

typedef struct SOFTWARE_DEVICE
{
    char name[ANNOUNCE_NAME_CHARACTERS + 1];
    HSWDEVICE handle;
    HANDLE enumerated;       // event
    HRESULT volatile result; // of the enumeration, once it is over
    DEVICE_INTERFACE interfaces[CLASS_COUNT];
} SOFTWARE_DEVICE;

enum
{
    MOST_DEVICES = 256
};

static const DWORD ENUMERATED_WITHIN_MS = 30000;

static SOFTWARE_DEVICE g_devices[MOST_DEVICES];
static size_t g_deviceCount;

static bool LoadApi(void)
{
    if (g_api.setState != NULL)
    {
        return true;
    }
    static const wchar_t library[] = L"cfgmgr32.dll";
    g_api.create = (SW_DEVICE_CREATE)FindRoutine(library, "SwDeviceCreate");
    g_api.close = (SW_DEVICE_CLOSE)FindRoutine(library, "SwDeviceClose");
    g_api.registerInterface = (SW_DEVICE_INTERFACE_REGISTER)FindRoutine(library, "SwDeviceInterfaceRegister");
    // Last: Windows 8 has all four, and who lacks one lacks this one.
    g_api.setState = (SW_DEVICE_INTERFACE_SET_STATE)FindRoutine(library, "SwDeviceInterfaceSetState");
    return g_api.setState != NULL;
}

// Any thread.
static VOID WINAPI OnEnumerated(HSWDEVICE handle, HRESULT result, PVOID context, PCWSTR deviceInstanceId)
{
    SOFTWARE_DEVICE *device = context;
    (void)handle;
    (void)deviceInstanceId;
    device->result = result;
    (void)SetEvent(device->enumerated);
}

static SOFTWARE_DEVICE *FindDevice(const char *name)
{
    for (size_t index = 0; index < g_deviceCount; index++)
    {
        if (strcmp(g_devices[index].name, name) == 0)
        {
            return &g_devices[index];
        }
    }
    return NULL;
}

// Starts the enumeration of a device and waits for the end of it; before that it takes no interfaces.
static SOFTWARE_DEVICE *CreateDevice(const char *name, ANNOUNCED *announced)
{
    WCHAR instance[ANNOUNCE_NAME_CHARACTERS + 1];
    const SW_DEVICE_CREATE_INFO info = {
        .cbSize = sizeof info,
        .pszInstanceId = instance,
        .pszzCompatibleIds = L"HilHotplugAnnounced\0",
        .CapabilityFlags = SW_DEVICE_SILENT_INSTALL | SW_DEVICE_NO_DISPLAY_IN_UI,
        .pszDeviceDescription = L"hil-hotplug announcement",
    };
    if (g_deviceCount == MOST_DEVICES)
    {
        SayAnnounceError(announced, "too many devices were announced", ERROR_NOT_ENOUGH_MEMORY);
        return NULL;
    }
    SOFTWARE_DEVICE *device = &g_devices[g_deviceCount];
    for (size_t index = 0; index <= strlen(name); index++)
    {
        instance[index] = (WCHAR)name[index];
    }
    device->enumerated = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (device->enumerated == NULL)
    {
        SayAnnounceError(announced, "CreateEvent", GetLastError());
        return NULL;
    }
    HRESULT result =
        g_api.create(L"" ANNOUNCE_ENUMERATOR, L"HTREE\\ROOT\\0", &info, 0, NULL, OnEnumerated, device, &device->handle);
    if (FAILED(result))
    {
        SayAnnounceError(announced, "SwDeviceCreate", (unsigned long)result);
        (void)CloseHandle(device->enumerated);
        return NULL;
    }
    // Its place is taken from here on: the callback may still come, and late.
    g_deviceCount += 1;
    const bool over = WaitForSingleObject(device->enumerated, ENUMERATED_WITHIN_MS) == WAIT_OBJECT_0;
    result = over ? device->result : HRESULT_FROM_WIN32(WAIT_TIMEOUT);
    if (FAILED(result))
    {
        SayAnnounceError(announced, "the enumeration of the software device", (unsigned long)result);
        g_api.close(device->handle);
        return NULL;
    }
    (void)memcpy(device->name, name, strlen(name) + 1);
    return device;
}

// User mode has "\\?\" where drivers have "\??\".
static void SayLink(const DEVICE_INTERFACE *deviceInterface, ANNOUNCED *announced)
{
    const int written =
        WideCharToMultiByte(CP_UTF8, 0, deviceInterface->id, -1, announced->link, sizeof announced->link, NULL, NULL);
    if (written == 0)
    {
        announced->link[0] = '\0';
        SayAnnounceError(announced, "the interface has a link that is too long", GetLastError());
    }
    else if (strncmp(announced->link, "\\\\?\\", 4) == 0)
    {
        announced->link[1] = '?';
    }
}

static void AnnounceArrival(const ANNOUNCEMENT *announcement, SOFTWARE_DEVICE *device, ANNOUNCED *announced)
{
    if (device == NULL)
    {
        device = CreateDevice(announcement->name, announced);
    }
    if (device == NULL)
    {
        return;
    }
    DEVICE_INTERFACE *deviceInterface = &device->interfaces[announcement->interfaceClass];
    if (deviceInterface->enabled)
    {
        SayAnnounceError(announced, "there is such an interface already", ERROR_ALREADY_EXISTS);
        return;
    }
    const bool registered = deviceInterface->id != NULL;
    const HRESULT result = registered ? g_api.setState(device->handle, deviceInterface->id, TRUE)
                                      : g_api.registerInterface(
                                            device->handle, InterfaceClassGuid(announcement->interfaceClass), NULL, 0,
                                            NULL, TRUE, &deviceInterface->id);
    if (FAILED(result))
    {
        SayAnnounceError(
            announced, registered ? "SwDeviceInterfaceSetState" : "SwDeviceInterfaceRegister", (unsigned long)result);
        return;
    }
    deviceInterface->enabled = true;
    SayLink(deviceInterface, announced);
}

static void AnnounceRemoval(const ANNOUNCEMENT *announcement, SOFTWARE_DEVICE *device, ANNOUNCED *announced)
{
    DEVICE_INTERFACE *deviceInterface = device == NULL ? NULL : &device->interfaces[announcement->interfaceClass];
    if (deviceInterface == NULL || !deviceInterface->enabled)
    {
        SayAnnounceError(announced, "there is no such interface", ERROR_FILE_NOT_FOUND);
        return;
    }
    const HRESULT result = g_api.setState(device->handle, deviceInterface->id, FALSE);
    if (FAILED(result))
    {
        SayAnnounceError(announced, "SwDeviceInterfaceSetState", (unsigned long)result);
        return;
    }
    deviceInterface->enabled = false;
    SayLink(deviceInterface, announced);
}

void AnnounceOnWindows(const ANNOUNCEMENT *announcement, ANNOUNCED *announced)
{
    if (!LoadApi())
    {
        SayAnnounceError(announced, "this Windows has no Software Device API", GetLastError());
        return;
    }
    SOFTWARE_DEVICE *device = FindDevice(announcement->name);
    (announcement->arrival ? AnnounceArrival : AnnounceRemoval)(announcement, device, announced);
}
