# Real data: the Schraivogel et al. (2020) TAP-seq screen with the calls that crispat's authors published. It is not part of the
# package; these tests skip where it is absent. KAICHI_TEST_DATA names the folder with schraivogel/ in it; without it, a
# folder shared/data is looked for beside the folders above the tests.
schraivogel <- function(file) {
  root <- Sys.getenv("KAICHI_TEST_DATA")
  folders <- if (nzchar(root)) {
    root
  } else {
    above <- Reduce(function(path, step) dirname(path), 1:8, normalizePath(test_path(".")), accumulate = TRUE)
    file.path(unique(above), "shared", "data")
  }
  path <- file.path(folders, "schraivogel", file)
  path <- path[file.exists(path)]
  if (length(path) == 0L) skip("the Schraivogel data is not here")
  path[1L]
}
