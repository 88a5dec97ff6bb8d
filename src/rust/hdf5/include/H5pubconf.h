/* For the build script of hdf5-metno-sys 0.11, which takes from here what the library can do. It knows no version after 2.0.0. */
#define H5_VERSION "2.0.0"
#define H5_HAVE_FILTER_DEFLATE 1
#define H5_NO_DEPRECATED_SYMBOLS 1
