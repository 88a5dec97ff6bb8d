# Writes src/rust/vendor.tar.xz: the crates of Cargo.lock, for an installation without network. Run by `make vendor`.
#
# Cargo wants every crate of the lock file to be there, also those it never compiles for the package (other platforms,
# tests, the command line). Of these only the manifest stays: the archive is half as large.
setwd("src/rust")

source("../../tools/crates.R")

unlink("vendor", recursive = TRUE)
invisible(cargo("vendor", "--locked", "--quiet", "vendor"))

compiled <- compiled_crates()
for (crate in list.dirs("vendor", recursive = FALSE)) {
  manifest <- readLines(file.path(crate, "Cargo.toml"))
  if (paste(first_value(manifest, "name"), first_value(manifest, "version")) %in% compiled) next
  checksums <- file.path(crate, ".cargo-checksum.json")
  package <- regmatches(text <- readLines(checksums, warn = FALSE), regexpr("\"package\":\"[0-9a-f]+\"", text))
  unlink(setdiff(list.files(crate, all.files = TRUE, no.. = TRUE, full.names = TRUE), file.path(crate, "Cargo.toml")), recursive = TRUE)
  # The files that the manifest names must exist, or cargo refuses to read it.
  named <- grep("^path = \".*\\.rs\"", manifest, value = TRUE)
  files <- unique(c("src/lib.rs", sub(".*\"(.*)\".*", "\\1", named)))
  for (file in file.path(crate, files)) {
    dir.create(dirname(file), showWarnings = FALSE, recursive = TRUE)
    file.create(file)
  }
  writeLines(paste0("{\"files\":{},", package, "}"), checksums)
}

# In a fixed order and with fixed dates, so that equal crates give equal archives.
status <- system("tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - vendor | xz -9e > vendor.tar.xz")
unlink("vendor", recursive = TRUE)
if (status != 0L) stop("tar or xz failed.")
cat(sprintf("src/rust/vendor.tar.xz: %.1f MB\n", file.size("vendor.tar.xz") / 1e6))
