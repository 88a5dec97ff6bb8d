# Writes inst/AUTHORS and LICENSE.note: whose crates the compiled package holds, and under which licences. Run by `make licences`;
# with --check it only says whether they are up to date.
setwd("src/rust")
source("../../tools/crates.R")

vendored <- tempfile("vendor")
invisible(cargo("vendor", "--locked", "--quiet", vendored))

# One value of a manifest, or the values of a list of text.
values <- function(text, key) {
  found <- regmatches(text, regexpr(paste0("\n", key, " = (\"[^\"]*\"|\\[[^]]*\\])"), text))
  if (length(found) == 0L) return(character())
  gsub("\"", "", unlist(regmatches(found, gregexpr("\"[^\"]*\"", found))))
}

crates <- lapply(list.dirs(vendored, recursive = FALSE), function(folder) {
  text <- paste(c("", readLines(file.path(folder, "Cargo.toml"), encoding = "UTF-8")), collapse = "\n")
  one <- function(key, none) {
    value <- values(text, key)
    if (length(value) == 0L) none else paste(value, collapse = ", ")
  }
  list(
    name = one("name", ""), version = one("version", ""), repository = one("repository", ""), licence = one("license", ""),
    # Addresses are nobody's business here.
    authors = gsub(" *<[^>]*>", "", one("authors", paste("The", one("name", ""), "developers")))
  )
})
unlink(vendored, recursive = TRUE)
ours <- compiled_crates()
crates <- Filter(function(crate) paste(crate$name, crate$version) %in% ours, crates)
crates <- crates[order(vapply(crates, `[[`, "", "name"), vapply(crates, `[[`, "", "version"), method = "radix")]
if (length(crates) == 0L || any(vapply(crates, `[[`, "", "licence") == "")) stop("A crate states no licence.")

hdf5 <- list(
  name = "HDF5", version = "2.2.0", repository = "https://github.com/HDFGroup/hdf5", licence = "BSD-3-Clause",
  authors = "The HDF Group; The Board of Trustees of the University of Illinois; see src/rust/hdf5/LICENSE"
)

authors <- c(
  "The authors of the Rust crates that the package is compiled with:", "",
  vapply(crates, function(crate) paste0(crate$name, " (version ", crate$version, "): ", crate$authors), ""), "",
  "The authors of the C library that it holds:", "", paste0(hdf5$name, " (version ", hdf5$version, "): ", hdf5$authors)
)
rule <- strrep("-", 62L)
entry <- function(crate) c(
  paste("Name:      ", crate$name), paste("Version:   ", crate$version), paste("Repository:", crate$repository),
  paste("Authors:   ", crate$authors), paste("License:   ", crate$licence), rule
)
note <- c(
  "The package is compiled with the following Rust crates, which src/rust/vendor.tar.xz of a source package holds with the texts",
  "of their licences.", "", rule,
  unlist(lapply(crates, entry)), "",
  "It also holds the C library HDF5, compiled from src/rust/hdf5/hdf5-2.2.0.tar.gz; its licence is src/rust/hdf5/LICENSE.", "",
  rule, entry(hdf5)
)

files <- list("../../inst/AUTHORS" = authors, "../../LICENSE.note" = note)
for (path in names(files)) {
  if ("--check" %in% commandArgs(TRUE)) {
    if (!file.exists(path) || !identical(readLines(path, encoding = "UTF-8"), enc2utf8(files[[path]]))) {
      stop(basename(path), " is out of date: run `make licences`.")
    }
  } else {
    connection <- file(path, "wb")
    writeLines(enc2utf8(files[[path]]), connection, useBytes = TRUE)
    close(connection)
  }
}
cat(length(crates), "crates\n")
