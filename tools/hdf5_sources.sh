#!/bin/sh
# Writes src/rust/hdf5/hdf5-2.2.0.tar.gz: of HDF5, as the crate hdf5-metno-src 0.10.4 has it, the C files and headers that are compiled.
# with tools/hdf5.patch. Left out are drivers, filters and interfaces that need other libraries (MPI, S3, Hadoop, szip), what is deprecated, and HDF5's tests.
set -eu
cd "$(dirname "$0")/.."
here=$PWD/tools
out=$PWD/src/rust/hdf5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/src"
printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nhdf5-metno-src = "=0.10.4"\n' >"$work/Cargo.toml"
: >"$work/src/lib.rs"
(cd "$work" && cargo vendor --quiet vendor >/dev/null)

hdf5=$work/vendor/hdf5-metno-src/ext/hdf5
to=$work/hdf5-2.2.0
mkdir "$to"
cp "$hdf5/LICENSE" "$hdf5"/src/*.[ch] "$hdf5/src/H5FDsubfiling/H5FDsubfiling.h" "$hdf5/src/H5FDsubfiling/H5FDioc.h" "$to"
cp "$hdf5/LICENSE" "$out/LICENSE"
cd "$to"
# Tables of classes name those of three tests.
for file in *test.c; do
  case $file in H5B2test.c | H5EAtest.c | H5FAtest.c) ;; *) rm "$file" ;; esac
done
# Of what is deprecated, hdf5-metno calls the references of HDF5 1.10, which are always there.
for file in *deprec.c; do
  [ "$file" = H5Rdeprec.c ] || rm "$file"
done
rm ./*mpi.c ./*mpio.c H5FDdirect.c H5FDhdfs.c H5FDmirror.c H5FDros3*.c H5PLsig.c H5Zdeflate.c H5Zszip.c
patch --no-backup-if-mismatch -p1 <"$here/hdf5.patch"
chmod 644 ./*

# In a fixed order and with fixed dates.
cd "$work"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - hdf5-2.2.0 | gzip -9n >"$out/hdf5-2.2.0.tar.gz"
ls -l "$out/hdf5-2.2.0.tar.gz"
