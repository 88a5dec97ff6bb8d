# Vectors over Rust's memory must be like R's own, whatever is done to them.
path <- system.file("extdata", "guides.h5ad", package = "kaichi")

# A plain copy, made element by element.
plain <- function(x) {
  out <- vector(typeof(x), length(x))
  for (i in seq_along(x)) out[i] <- x[[i]]
  out
}

test_that("columns are ordinary vectors", {
  calls <- assign_guides(path)
  columns <- c(calls$cells, calls$pairs, list(calls$counts@i, calls$counts@x, calls$counts@p, colnames(calls$counts)))
  expect_true(any(is.na(calls$cells$guide_id)))
  for (column in columns) {
    expected <- plain(column)
    expect_identical(column, expected)
    expect_identical(rev(rev(column)), expected)
    expect_identical(column[-1L], expected[-1L])
    expect_identical(column[c(1, NA, length(column) + 1L)], expected[c(1, NA, length(expected) + 1L)])
    expect_identical(sort(column), sort(expected))
    expect_identical(unique(column), unique(expected))
    expect_identical(is.na(column), is.na(expected))
    expect_identical(unserialize(serialize(column, NULL)), expected)
    expect_identical(as.character(column), as.character(expected))
    expect_identical(c(column, column), c(expected, expected))
  }
})

test_that("a changed copy leaves the original, and its other copies, as they were", {
  for (touch in c(FALSE, TRUE)) {
    calls <- assign_guides(path)
    before <- lapply(calls$cells, plain)
    if (touch) expect_identical(nchar(calls$cells$cell_barcode), nchar(before$cell_barcode))
    changed <- calls$cells
    again <- changed
    changed$cell_barcode[2L] <- "new"
    changed$guide_id[1L] <- "new"
    changed$guide_id[3L] <- NA
    changed$umi_count[1L] <- -1L
    changed$set_probability[1L] <- -1
    expect_identical(changed$cell_barcode, replace(before$cell_barcode, 2L, "new"))
    expect_identical(changed$guide_id, replace(replace(before$guide_id, 1L, "new"), 3L, NA))
    expect_identical(c(changed$umi_count[1L], changed$set_probability[1L]), c(-1, -1))
    expect_identical(as.list(again), before)
    expect_identical(as.list(calls$cells), before)
    expect_identical(colnames(calls$counts), before$cell_barcode)
  }
})

test_that("names that are not UTF-8 ASCII keep their encoding, and empty results their type", {
  screen <- matrix(c(9, 0, 0, 7), 2L, dimnames = list(c("g\u00fc", "h"), c("c\u00e9", "d")))
  calls <- assign_guides(screen, model = "umi")
  expect_identical(calls$pairs$guide_id, c("g\u00fc", "h"))
  expect_identical(Encoding(calls$pairs$cell_barcode[1L]), "UTF-8")
  none <- assign_guides(screen, model = "umi", min_umi = 100)
  expect_identical(none$pairs$cell_barcode, character())
  expect_identical(none$cells$guide_id, rep(NA_character_, 2L))
  expect_identical(dim(as.matrix(none$assigned)), c(2L, 2L))
})

test_that("strings outlive what they were made from, and the garbage collector", {
  barcodes <- assign_guides(path, model = "umi")$pairs$cell_barcode
  expected <- plain(assign_guides(path, model = "umi")$pairs$cell_barcode)
  invisible(gc())
  first <- barcodes[1:3]
  previous <- gctorture(TRUE)
  made <- rev(barcodes[1:20])
  gctorture(previous)
  expect_identical(first, expected[1:3])
  expect_identical(made, rev(expected[1:20]))
  expect_identical(paste(barcodes), expected)
})

test_that("memory of results that are gone is given back", {
  held <- function() {
    invisible(gc())
    as.numeric(sub(" kB", "", sub("VmRSS:\\s*", "", grep("VmRSS", readLines("/proc/self/status"), value = TRUE))))
  }
  skip_if_not(file.exists("/proc/self/status"))
  screen <- simulate_guides("easy", n_cells = 20000, n_guides = 50)$counts
  # The allocator keeps some of what is freed, as much as one such loop needs.
  for (i in 1:30) assign_guides(screen, model = "umi")
  start <- held()
  for (i in 1:30) assign_guides(screen, model = "umi")
  # Each run makes more than 2 MB.
  expect_lt(held() - start, 30000)
})
