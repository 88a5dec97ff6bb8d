/* What CMake finds out for HDF5, said here for 64-bit Linux, macOS and Windows (mingw) by the macros that gcc and clang define.
 * No threads: whoever calls HDF5 holds the lock of hdf5-metno-sys. */
#ifndef H5pubconf_H
#define H5pubconf_H

#define H5_VERSION "2.2.0"
#define H5_PACKAGE "hdf5"
#define H5_PACKAGE_BUGREPORT "help@hdfgroup.org"
#define H5_PACKAGE_NAME "HDF5"
#define H5_PACKAGE_STRING "HDF5 2.2.0"
#define H5_PACKAGE_TARNAME "hdf5"
#define H5_PACKAGE_URL "https://www.hdfgroup.org"
#define H5_PACKAGE_VERSION "2.2.0"

/* By deflate.c */
#define H5_HAVE_FILTER_DEFLATE 1

#define H5_NO_DEPRECATED_SYMBOLS 1
#define H5_USE_FILE_LOCKING 1
#define H5_IGNORE_DISABLED_FILE_LOCKS 1
#define H5_WANT_DATA_ACCURACY 1
#define H5_WANT_DCONV_EXCEPTION 1
#define H5_LDOUBLE_TO_LLONG_ACCURATE 1
#define H5_LLONG_TO_LDOUBLE_CORRECT 1

#define H5_HAVE_ATTRIBUTE 1
#define H5_HAVE_DIRENT_H 1
#define H5_HAVE_LIBM 1
#define H5_HAVE_STDATOMIC_H 1
#define H5_HAVE_STRDUP 1
#define H5_HAVE_SYS_STAT_H 1
#define H5_HAVE_SYS_TIME_H 1
#define H5_HAVE_UNISTD_H 1

#ifdef _WIN32
#define H5_DEFAULT_PLUGINDIR "%ALLUSERSPROFILE%\\hdf5\\lib\\plugin"
#define H5_HAVE_MINGW 1
#define H5_HAVE_SHLWAPI_H 1
#define H5_HAVE_WIN32_API 1
#define H5_HAVE_WINDOWS 1
#else
#define H5_DEFAULT_PLUGINDIR "/usr/local/hdf5/lib/plugin"
#define H5_HAVE_ALARM 1
#define H5_HAVE_ASPRINTF 1
#define H5_HAVE_DLFCN_H 1
#define H5_HAVE_CLOCK_GETTIME 1
#define H5_HAVE_FCNTL 1
#define H5_HAVE_FLOCK 1
#define H5_HAVE_FORK 1
#define H5_HAVE_GETHOSTNAME 1
#define H5_HAVE_GETRUSAGE 1
#define H5_HAVE_GETTIMEOFDAY 1
#define H5_HAVE_IOCTL 1
#define H5_HAVE_LIBDL 1
#define H5_HAVE_PREADWRITE 1
#define H5_HAVE_PTHREAD_H 1
#define H5_HAVE_PWD_H 1
#define H5_HAVE_STAT_ST_BLOCKS 1
#define H5_HAVE_STRCASESTR 1
#define H5_HAVE_SYMLINK 1
#define H5_HAVE_SYS_FILE_H 1
#define H5_HAVE_SYS_IOCTL_H 1
#define H5_HAVE_SYS_RESOURCE_H 1
#define H5_HAVE_SYS_SOCKET_H 1
#define H5_HAVE_TMPFILE 1
#define H5_HAVE_TM_GMTOFF 1
#define H5_HAVE_VASPRINTF 1
#define H5_HAVE_WAITPID 1
#endif
#ifdef __linux__
#define H5_HAVE_TIMEZONE 1
#endif
#ifdef __APPLE__
#define H5_HAVE_DARWIN 1
#endif

#define H5_SIZEOF_BOOL 1
#define H5_SIZEOF_CHAR 1
#define H5_SIZEOF_SHORT __SIZEOF_SHORT__
#define H5_SIZEOF_INT __SIZEOF_INT__
#define H5_SIZEOF_UNSIGNED __SIZEOF_INT__
#define H5_SIZEOF_LONG __SIZEOF_LONG__
#define H5_SIZEOF_SIZE_T __SIZEOF_SIZE_T__
#define H5_SIZEOF_SSIZE_T __SIZEOF_SIZE_T__
#define H5_SIZEOF_PTRDIFF_T __SIZEOF_PTRDIFF_T__
#define H5_SIZEOF_OFF_T 8
#define H5_SIZEOF_TIME_T 8
#define H5_SIZEOF_FLOAT __SIZEOF_FLOAT__
#define H5_SIZEOF_DOUBLE __SIZEOF_DOUBLE__
#define H5_SIZEOF_LONG_DOUBLE __SIZEOF_LONG_DOUBLE__
#define H5_SIZEOF__FLOAT16 0

#define H5_SIZEOF_INT8_T 1
#define H5_SIZEOF_UINT8_T 1
#define H5_SIZEOF_INT_LEAST8_T 1
#define H5_SIZEOF_UINT_LEAST8_T 1
#define H5_SIZEOF_INT_FAST8_T sizeof(int_fast8_t)
#define H5_SIZEOF_UINT_FAST8_T sizeof(uint_fast8_t)
#define H5_SIZEOF_INT16_T 2
#define H5_SIZEOF_UINT16_T 2
#define H5_SIZEOF_INT_LEAST16_T 2
#define H5_SIZEOF_UINT_LEAST16_T 2
#define H5_SIZEOF_INT_FAST16_T sizeof(int_fast16_t)
#define H5_SIZEOF_UINT_FAST16_T sizeof(uint_fast16_t)
#define H5_SIZEOF_INT32_T 4
#define H5_SIZEOF_UINT32_T 4
#define H5_SIZEOF_INT_LEAST32_T 4
#define H5_SIZEOF_UINT_LEAST32_T 4
#define H5_SIZEOF_INT_FAST32_T sizeof(int_fast32_t)
#define H5_SIZEOF_UINT_FAST32_T sizeof(uint_fast32_t)
#define H5_SIZEOF_INT64_T 8
#define H5_SIZEOF_UINT64_T 8
#define H5_SIZEOF_INT_LEAST64_T 8
#define H5_SIZEOF_UINT_LEAST64_T 8
#define H5_SIZEOF_INT_FAST64_T sizeof(int_fast64_t)
#define H5_SIZEOF_UINT_FAST64_T sizeof(uint_fast64_t)

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define H5_WORDS_BIGENDIAN 1
#endif

#endif
