# One HDF5 library serves all packages of a session, and rhdf5 puts its own handler of errors there, which leaves the frames of
# whoever called HDF5: neither may be disturbed, whichever came first.
neighbours <- c("rhdf5", "hdf5r", "HDF5Array", "Seurat")

# Reads a file and fails at two others, before and after the neighbour has done the same.
script <- function(packages) {
  c(
    "arguments <- commandArgs(TRUE)",
    sprintf("suppressPackageStartupMessages(library(%s))", packages),
    "ours <- function() {",
    "  for (bad in arguments[2:3]) {",
    "    error <- tryCatch(read_guides(bad), error = identity)",
    "    stopifnot(inherits(error, 'kaichi_error'), !inherits(error, 'kaichi_error_internal'))",
    "  }",
    "  stopifnot(identical(read_guides(arguments[1]), readRDS(arguments[4])))",
    "}",
    "fails <- function(code) inherits(try(code, silent = TRUE), 'try-error')",
    "theirs <- list(",
    "  rhdf5 = function() {",
    "    stopifnot(length(rhdf5::h5read(arguments[1], 'X/data')) > 0L, fails(rhdf5::h5read(arguments[1], 'nowhere')))",
    "    rhdf5::h5closeAll()",
    "  },",
    "  hdf5r = function() {",
    "    file <- hdf5r::H5File$new(arguments[1], 'r')",
    "    stopifnot(length(file[['X/data']][]) > 0L, fails(file[['nowhere']]))",
    "    file$close_all()",
    "  },",
    "  HDF5Array = function() {",
    "    values <- HDF5Array::HDF5Array(arguments[1], 'X/data')",
    "    stopifnot(length(values) > 0L, sum(values) > 0, fails(HDF5Array::HDF5Array(arguments[1], 'nowhere')))",
    "  },",
    "  Seurat = function() {",
    "    object <- suppressWarnings(SeuratObject::CreateSeuratObject(readRDS(arguments[4])))",
    "    stopifnot(ncol(suppressMessages(assign_guides(object, 'umi', modality = 'RNA'))) > 0L)",
    "  }",
    ")",
    sprintf("them <- theirs[['%s']]", setdiff(packages, "kaichi")),
    if (packages[1L] == "kaichi") "ours(); them(); ours(); them()" else "them(); ours(); them(); ours()",
    "cat('both work')"
  )
}

test_that("packages that use HDF5 work before and after, in either order", {
  skip_on_cran()
  path <- test_path("fixtures", "anndata-0.10.9-csr.h5ad")
  # Not HDF5 after its first bytes, and HDF5 without its matrix.
  bad <- test_path("fixtures", c("bad-hdf5.h5ad", "bad-no-matrix.h5ad"))
  counts <- tempfile(fileext = ".rds")
  saveRDS(read_guides(path), counts)
  installed <- Filter(function(package) requireNamespace(package, quietly = TRUE), neighbours)
  skip_if(length(installed) == 0L, "no package that uses HDF5")
  for (package in installed) {
    for (packages in list(c("kaichi", package), c(package, "kaichi"))) {
      file <- tempfile(fileext = ".R")
      writeLines(script(packages), file)
      said <- suppressWarnings(system2(
        file.path(R.home("bin"), "Rscript"), shQuote(c("--vanilla", file, path, bad, counts)),
        stdout = TRUE, stderr = TRUE, env = paste0("R_LIBS=", shQuote(paste(.libPaths(), collapse = .Platform$path.sep)))
      ))
      expect_match(paste(said, collapse = "\n"), "both work", fixed = TRUE, info = paste(packages, collapse = ", then "))
    }
  }
})
