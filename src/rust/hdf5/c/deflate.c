/* HDF5's filter deflate, by the zlib of ../src/lib.rs. */
#include "H5private.h"
#include "H5Zprivate.h"

size_t kaichi_hdf5_deflate(unsigned flags, size_t n_values, const unsigned *values, size_t n, size_t *size, void **buffer);

const H5Z_class2_t H5Z_DEFLATE[1] = {
    {H5Z_CLASS_T_VERS, H5Z_FILTER_DEFLATE, 1, 1, "deflate", NULL, NULL, kaichi_hdf5_deflate}};

const char H5build_settings[] = "";
