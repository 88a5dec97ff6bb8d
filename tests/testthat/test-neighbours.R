# Other packages of a session bring an HDF5, too: rhdf5 installs a handler that raises an R error from within HDF5, and an error that
# jumps out of the thread-safe library leaves its lock taken for good. kaichi has an HDF5 of its own, so that neither is disturbed,
# whichever came first.
neighbours <- c("rhdf5", "hdf5r", "HDF5Array", "DropletUtils", "Seurat")

# Reads, writes and streams, and fails at two files, before and after the neighbour has read and failed.
script <- function(packages) {
  c(
    "arguments <- commandArgs(TRUE)",
    "names(arguments) <- c('h5ad', 'tenx', 'expected', 'bad', 'worse', 'text')",
    "path <- as.list(arguments)",
    "expected <- readRDS(path$expected)",
    sprintf("suppressPackageStartupMessages(library(%s))", packages),
    "ours <- function() {",
    "  for (bad in c(path$bad, path$worse, path$text)) {",
    "    error <- tryCatch(read_guides(bad), error = identity)",
    "    stopifnot(inherits(error, 'kaichi_error'), !inherits(error, 'kaichi_error_internal'))",
    "  }",
    "  stopifnot(identical(read_guides(path$h5ad), expected$h5ad))",
    "  stopifnot(identical(suppressMessages(read_guides(path$tenx)), expected$tenx))",
    "  written <- tempfile(fileext = '.h5ad')",
    "  write_calls(assign_guides(path$h5ad, 'umi'), written)",
    "  streamed <- tempfile(fileext = '.h5ad')",
    "  assign_guides(path$h5ad, 'umi', output = streamed)",
    "  stopifnot(identical(read_guides(written), expected$h5ad), identical(read_guides(streamed), expected$h5ad))",
    "}",
    "fails <- function(code) inherits(try(code, silent = TRUE), 'try-error')",
    "total <- sum(expected$h5ad)",
    "first <- TRUE",
    "theirs <- list(",
    "  rhdf5 = function() {",
    "    stopifnot(fails(rhdf5::h5ls(path$text)), fails(rhdf5::h5read(path$h5ad, 'nowhere')))",
    "    stopifnot(sum(rhdf5::h5read(path$h5ad, 'X/data')) == total)",
    "    rhdf5::h5closeAll()",
    "  },",
    "  hdf5r = function() {",
    "    stopifnot(fails(hdf5r::H5File$new(path$text, 'r')))",
    "    file <- hdf5r::H5File$new(path$h5ad, 'r')",
    "    stopifnot(fails(file[['nowhere']]), sum(file[['X/data']][]) == total)",
    "    file$close_all()",
    "  },",
    "  HDF5Array = function() {",
    # In HDF5Array 1.26 by itself, the second of these is an error.
    "    tenx <- try(sum(HDF5Array::TENxMatrix(path$tenx)), silent = TRUE)",
    "    stopifnot(!first || tenx == 237)",
    "    stopifnot(fails(HDF5Array::HDF5Array(path$h5ad, 'nowhere')), sum(HDF5Array::HDF5Array(path$h5ad, 'X/data')) == total)",
    "  },",
    "  DropletUtils = function() {",
    "    tenx <- try(suppressMessages(DropletUtils::read10xCounts(path$tenx)), silent = TRUE)",
    "    stopifnot(!first || identical(dim(tenx), c(10L, 12L)))",
    "    stopifnot(sum(HDF5Array::HDF5Array(path$h5ad, 'X/data')) == total)",
    "  },",
    "  Seurat = function() {",
    "    object <- suppressWarnings(SeuratObject::CreateSeuratObject(expected$h5ad))",
    "    stopifnot(ncol(suppressMessages(assign_guides(object, 'umi', modality = 'RNA'))) > 0L)",
    "  }",
    ")",
    "them <- function() {",
    sprintf("  theirs[['%s']]()", setdiff(packages, "kaichi")),
    "  first <<- FALSE",
    "}",
    if (packages[1L] == "kaichi") "ours(); them(); ours(); them()" else "them(); ours(); them(); ours()",
    "cat('both work')"
  )
}

is_here <- function(package) requireNamespace(package, quietly = TRUE)

test_that("packages that use HDF5 work before and after, in either order, and after their errors", {
  skip_on_cran()
  # Minutes there, for lines that other tests run.
  skip_on_covr()
  installed <- Filter(is_here, neighbours)
  skip_if(length(installed) == 0L, "no package that uses HDF5")
  files <- test_path("fixtures", c("anndata-0.10.9-csr.h5ad", "tenx.h5"))
  counts <- lapply(files, function(file) suppressMessages(read_guides(file)))
  names(counts) <- c("h5ad", "tenx")
  expect_identical(unname(vapply(counts, sum, 0)), c(147, 147))
  expected <- tempfile(fileext = ".rds")
  saveRDS(counts, expected)
  text <- tempfile(fileext = ".h5")
  writeLines("This is no HDF5.", text)
  # Not HDF5 after its first bytes, and HDF5 without its matrix.
  bad <- test_path("fixtures", c("bad-hdf5.h5ad", "bad-no-matrix.h5ad"))
  orders <- do.call(c, lapply(installed, function(package) list(c("kaichi", package), c(package, "kaichi"))))
  said_by <- function(packages) {
    file <- tempfile(fileext = ".R")
    writeLines(script(packages), file)
    # One that waits for ever is ended.
    said <- suppressWarnings(system2(
      file.path(R.home("bin"), "Rscript"), shQuote(c("--vanilla", file, files, expected, bad, text)),
      stdout = TRUE, stderr = TRUE, timeout = 120,
      env = paste0("R_LIBS=", shQuote(paste(.libPaths(), collapse = .Platform$path.sep)))
    ))
    paste(said, collapse = "\n")
  }
  # To load them takes most of the time, and one core each.
  said <- parallel::mclapply(orders, said_by, mc.cores = if (.Platform$OS.type == "windows") 1L else 2L)
  for (at in seq_along(orders)) {
    expect_match(said[[at]], "both work", fixed = TRUE, info = paste(orders[[at]], collapse = ", then "))
  }
})

test_that("Ctrl-C ends a read after an HDF5 error of another package", {
  skip_on_cran()
  skip_on_os("windows")
  installed <- Filter(is_here, c("rhdf5", "hdf5r"))
  skip_if(length(installed) == 0L, "neither rhdf5 nor hdf5r")
  folder <- tempfile("interrupt")
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  path <- function(name) file.path(folder, name)
  writeLines("This is no HDF5.", path("text.h5"))
  write_calls(assign_guides(simulate_guides("easy", n_cells = 20000, n_guides = 200, seed = 1)$counts, "umi"), path("in.h5ad"))
  fails <- c(rhdf5 = "rhdf5::h5ls(text)", hdf5r = "hdf5r::H5File$new(text, \"r\")")[installed[1L]]
  writeLines(
    c(
      paste0(".libPaths(", paste(deparse(.libPaths()), collapse = ""), ")"),
      sprintf("text <- \"%s\"", path("text.h5")),
      sprintf("try(%s, silent = TRUE)", fails),
      "read <- function() repeat {",
      sprintf("  kaichi::read_guides(\"%s\")", path("in.h5ad")),
      sprintf("  if (!file.exists(\"%1$s\")) writeLines(as.character(Sys.getpid()), \"%1$s\")", path("ready")),
      "}",
      sprintf("tryCatch(read(), interrupt = function(condition) file.create(\"%s\"))", path("stopped"))
    ),
    path("script.R")
  )
  run_behind(file.path(R.home("bin"), "R"), c("--vanilla", "--no-echo", "-f", shQuote(path("script.R"))))
  wait_for <- function(name, seconds) {
    end <- Sys.time() + seconds
    while (!file.exists(path(name)) && Sys.time() < end) Sys.sleep(0.02)
    expect_true(file.exists(path(name)), label = name)
  }
  wait_for("ready", 60)
  Sys.sleep(0.2)
  began <- Sys.time()
  tools::pskill(as.integer(readLines(path("ready"))), tools::SIGINT)
  wait_for("stopped", 10)
  # It takes 0.1 s; the machine may be busy.
  expect_lt(as.numeric(Sys.time() - began, units = "secs"), 5)
})
