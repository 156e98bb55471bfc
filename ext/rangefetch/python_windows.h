/* What Python's headers need to know about 64-bit Windows. It replaces pyconfig.h and is included before everything
 * else, so that the headers of a Python on any system can be used. With the stable ABI, nothing else differs.
 */
#define Py_PYCONFIG_H
#define Py_CONFIG_H /* the guard in Windows' own */
#define Py_ENABLE_SHARED 1
#define HAVE_DECLSPEC_DLL 1
#define MS_WINDOWS 1
#define MS_WIN64 1
#define ALIGNOF_LONG 4
#define ALIGNOF_SIZE_T 8
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_VOID_P 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_TIME_T 8
#define SIZEOF_FLOAT 4
#define SIZEOF_DOUBLE 8
#define SIZEOF_HKEY 8
#define SIZEOF_PID_T 4
#define SIZEOF_FPOS_T 8
#define SIZEOF_OFF_T 4
#define HAVE_STDARG_PROTOTYPES 1
#define HAVE_LONG_LONG 1
#define WITH_THREAD 1
#define NT_THREADS 1
