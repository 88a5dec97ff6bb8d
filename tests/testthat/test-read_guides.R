# The fixtures are written by tools/fixtures/write_h5ad.py and write_h5ad_parts.py; this is the matrix of both.
truth <- local({
  cell <- rep(0:11, each = 5)
  guide <- rep(0:4, 12)
  matrix(
    ifelse((cell + 2 * guide) %% 3 == 0, (7 * cell + 3 * guide) %% 11, 0), 5, 12,
    dimnames = list(paste0("guide-\u00e9", 1:5), paste0("cell_", 1:12))
  )
})
lanes <- rep(c("1", "2", "3"), 4)

fixture <- function(name) test_path("fixtures", name)
fixtures <- function(pattern) list.files(test_path("fixtures"), pattern)
# Texts of errors, without the folder of the fixtures.
expect_texts <- function(...) {
  texts <- c(...)
  expect_snapshot(writeLines(texts), transform = function(lines) gsub("fixtures/", "", lines, fixed = TRUE))
}
error_text <- function(code) {
  condition <- tryCatch(code, kaichi_error = identity)
  paste0("<", class(condition)[1L], "> ", conditionMessage(condition))
}

test_that("every version of anndata gives the same counts, from sparse rows, sparse columns and dense", {
  files <- fixtures("^anndata-")
  expect_length(files, 13L)
  for (file in files) {
    counts <- read_guides(fixture(file))
    expect_s4_class(counts, "dgCMatrix")
    expect_true(validObject(counts), label = file)
    expect_identical(as.matrix(counts), truth, label = file)
    expect_false(any(counts@x == 0), label = file)
    expect_identical(as.matrix(read_guides(fixture(file), layer = "doubled")), 2 * truth, label = file)
  }
})

test_that("every stored type, byte order, index width, string type and legacy layout gives the same counts", {
  files <- fixtures("^parts-")
  expect_length(files, 13L)
  for (file in files) {
    counts <- read_guides(fixture(file))
    expect_true(validObject(counts), label = file)
    expect_false(any(counts@x == 0), label = file)
    expected <- truth
    # Only the files about strings hold a name beyond ASCII.
    if (!grepl("strings|groups", file)) rownames(expected) <- sub("-\u00e9", "_", rownames(expected))
    expect_identical(as.matrix(counts), expected, label = file)
  }
})

test_that("a square matrix is not read transposed, and booleans are counts of one", {
  square <- unname(truth[, 1:5])
  expect_false(isSymmetric(square))
  expect_identical(unname(as.matrix(read_guides(fixture("square-csr.h5ad")))), square)
  expect_identical(unname(as.matrix(read_guides(fixture("square-csc.h5ad")))), square)
  expect_identical(unname(as.matrix(read_guides(fixture("square-bool.h5ad")))), (square > 0) + 0)
})

test_that("a batch is read from text, categories, integers, whole floats, booleans and nullable columns", {
  for (file in fixtures("^anndata-")) {
    batch <- function(column) read_guide_file(fixture(file), batch = column)$batch
    expect_identical(batch("lane"), lanes, label = file)
    expect_identical(batch("lane_float"), lanes, label = file)
    expect_identical(batch("lane_number_category"), lanes, label = file)
    expect_identical(batch("lane_text"), paste("lane", lanes), label = file)
    expect_identical(batch("lane_category"), paste("lane", lanes), label = file)
    expect_identical(batch("lane_ordered"), paste("lane", lanes), label = file)
    expect_identical(batch("odd"), ifelse(lanes == "2", "FALSE", "TRUE"), label = file)
    if (!grepl("0.7", file, fixed = TRUE)) {
      expect_identical(batch("lane_nullable"), lanes, label = file)
      expect_identical(batch("odd_nullable"), ifelse(lanes == "2", "FALSE", "TRUE"), label = file)
    }
    if (grepl("strings", file)) expect_identical(batch("lane_string"), paste("lane", lanes), label = file)
    expect_error(batch("lane_na"), "NA for cell \"cell_2\" \\(6 such cells\\)", class = "kaichi_error_batch")
    expect_error(batch("share"), "holds fractions", class = "kaichi_error_batch")
  }
  expect_null(read_guide_file(fixture("anndata-0.8.0-csr.h5ad"))$batch)
})

test_that("a batch that cannot be used says why", {
  batch <- function(column, file) error_text(read_guide_file(fixture(file), batch = column))
  expect_texts(
    batch("plate", "anndata-0.10.9-csr.h5ad"), batch("lane_nullable_na", "anndata-0.10.9-csr.h5ad"),
    batch("share", "anndata-0.10.9-csr.h5ad"), batch("lane", "parts-legacy.h5ad"),
    batch("code", "bad-batch.h5ad"), batch("short", "bad-batch.h5ad"), batch("table", "bad-batch.h5ad")
  )
})

test_that("broken files and other formats are refused with what to do", {
  files <- setdiff(fixtures("^bad-"), "bad-batch.h5ad")
  expect_gt(length(files), 35L)
  expect_texts(vapply(sort(files, method = "radix"), function(file) error_text(read_guides(fixture(file))), ""))
})

test_that("layers are named where the one asked for is missing or wrong", {
  expect_texts(
    error_text(read_guides(fixture("anndata-0.8.0-csr.h5ad"), layer = "counts")),
    error_text(read_guides(fixture("parts-csr-int8.h5ad"), layer = "counts")),
    error_text(read_guides(fixture("bad-layer-counts.h5ad"), layer = "scaled"))
  )
  expect_identical(unname(as.matrix(read_guides(fixture("bad-layer-counts.h5ad"), layer = "raw_counts"))), unname(truth))
})

test_that("zstd needs no plugin", {
  expect_identical(unname(as.matrix(read_guides(fixture("filter-zstd.h5ad")))), unname(truth))
})

test_that("a missing compression filter is named", {
  skip_if(nzchar(Sys.getenv("HDF5_PLUGIN_PATH")), "plugins may be present")
  files <- setdiff(fixtures("^filter-"), "filter-zstd.h5ad")
  expect_length(files, 4L)
  for (file in files) {
    name <- sub("filter-(.*).h5ad", "\\1", file)
    text <- error_text(read_guides(fixture(file)))
    # A system-wide plugin is fine too.
    if (!startsWith(text, "<kaichi_error_format>")) skip(paste("this HDF5 reads", name))
    expect_match(text, paste("X is compressed with", name, "(HDF5 filter"), fixed = TRUE)
    expect_match(text, "compression=\"gzip\"", fixed = TRUE)
  }
})

test_that("missing files, folders and files cut short are file errors", {
  expect_texts(
    error_text(read_guides(fixture("absent.h5ad"))),
    error_text(read_guides(test_path("fixtures", ".")))
  )
  # The rest of the text is HDF5's own.
  expect_error(read_guides(fixture("cut.h5ad")), "cut.h5ad\" is an HDF5 file that cannot be opened", class = "kaichi_error_file")
})

test_that("path and layer are one string", {
  expect_texts(
    error_text(read_guides(1)),
    error_text(read_guides(NA_character_)),
    error_text(read_guides(c("a.h5ad", "b.h5ad"))),
    error_text(read_guides(character())),
    error_text(read_guides("a.h5ad", layer = 2)),
    error_text(read_guides("a.h5ad", layer = c("a", "b")))
  )
})
