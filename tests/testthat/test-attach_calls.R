skip_if_not_installed("SingleCellExperiment")

# Objects with the expression of some cells, in an order of their own.
rna_of <- function(cells) {
  matrix(seq_len(4L * length(cells)) %% 7 + 0, 4L, dimnames = list(paste0("gene", 1:4), cells))
}
sce_of <- function(cells) SingleCellExperiment::SingleCellExperiment(list(counts = rna_of(cells)))
seurat_of <- function(cells) SeuratObject::CreateSeuratObject(as_counts(rna_of(cells)))
quietly <- function(...) suppressMessages(attach_calls(...))
guide_of <- function(calls, cells) calls$cells$guide_id[match(cells, calls$cells$cell_barcode)]

test_that("calls are joined to an SCE, which gets the guides as an altExp", {
  calls <- awkward_calls()
  cells <- c(calls$cells$cell_barcode[c(40:11)], paste0(barcodes(70)[61:70], "-1"))
  x <- sce_of(cells)
  message <- expect_message(inner <- attach_calls(x, calls), class = "kaichi_message_choice")
  expect_identical(conditionMessage(message), paste0(
    "Calls for 30 of the 40 cells of `x` (60 in the calls); the others are dropped (join = \"inner\").\n"
  ))
  expect_identical(colnames(inner), cells[1:30])
  expect_identical(inner$guide_id, guide_of(calls, cells[1:30]))
  guides <- SingleCellExperiment::altExp(inner, "guides")
  expect_identical(SummarizedExperiment::assay(guides, "counts"), calls$counts[, cells[1:30]])
  expect_identical(SummarizedExperiment::assay(guides, "assigned"), calls$assigned[, cells[1:30]])

  expect_message(left <- attach_calls(x, calls, join = "left"), "30 of the 40 cells of `x` (60 in the calls).", fixed = TRUE)
  expect_identical(colnames(left), cells)
  expect_identical(left$guide_id, guide_of(calls, cells))
  expect_identical(left$is_unassigned[31:40], rep(TRUE, 10L))
  expect_identical(left$n_guides_detected[31:40], integer(10L))
  assigned <- SummarizedExperiment::assay(SingleCellExperiment::altExp(left, "guides"), "assigned")
  expect_identical(unname(Matrix::colSums(assigned)), as.numeric(left$n_guides_detected))
  # All of the same name: nothing to say, and a rerun finds its own place.
  same <- sce_of(calls$cells$cell_barcode)
  expect_silent(once <- attach_calls(same, calls))
  expect_silent(twice <- attach_calls(once, calls))
  expect_identical(twice, once)
})

test_that("calls are joined to a Seurat object, which gets the guides as an assay", {
  skip_if_not_installed("SeuratObject")
  calls <- awkward_calls()
  cells <- c(calls$cells$cell_barcode[c(40:11)], paste0(barcodes(70)[61:70], "-1"))
  x <- seurat_of(cells)
  expect_message(inner <- attach_calls(x, calls), class = "kaichi_message_choice")
  expect_identical(colnames(inner), cells[1:30])
  expect_identical(inner$guide_id, stats::setNames(guide_of(calls, cells[1:30]), cells[1:30]))
  expect_identical(unname(as.matrix(inner[["GDO"]]@counts)), unname(as.matrix(calls$counts[, cells[1:30]])))
  expect_identical(SeuratObject::DefaultAssay(inner), "RNA")
  expect_true(methods::validObject(inner))
  left <- quietly(x, calls, join = "left")
  expect_identical(colnames(left), cells)
  expect_identical(unname(left$guide_id), guide_of(calls, cells))
  expect_identical(quietly(left, calls, join = "left"), left)
})

test_that("barcodes are matched through suffixes and prefixes, one to one", {
  bare <- barcodes(60)
  calls <- awkward_calls()
  expected <- calls$cells$guide_id[40:11]
  joined <- function(cells, calls) {
    message <- expect_message(x <- attach_calls(sce_of(cells), calls), class = "kaichi_message_choice")
    expect_identical(colnames(x), cells)
    expect_identical(x$guide_id, expected)
    expect_identical(colnames(SingleCellExperiment::altExp(x, "guides")), cells)
    conditionMessage(message)
  }
  expect_match(joined(bare[40:11], calls), "without \"-1\" (\"AAAAAAAAAAAAAAGG-1\" is \"AAAAAAAAAAAAAAGG\")", fixed = TRUE)
  for (make in list(
    function(x) paste0("S1_", x, "-1"), function(x) paste0(x, "-1_1"), function(x) paste0("run2#", x, "-1"),
    function(x) paste0("a_b:", x, "-1-lane3")
  )) {
    expect_match(joined(make(bare[40:11]), calls), "by the nucleotides and the number after them", fixed = TRUE)
  }
  for (make in list(function(x) paste0("S1_", x), function(x) paste0(x, "_2"), function(x) paste0(x, ".2"), function(x) paste0("S1_", x, "-3"))) {
    expect_match(joined(make(bare[40:11]), calls), "by the nucleotides (", fixed = TRUE)
  }
  # Gem groups stay apart as long as they are told.
  two <- calls
  two <- take_cells(two, seq_len(60L), c(paste0(bare[1:30], "-1"), paste0(bare[1:30], "-2")))
  cells <- c(paste0("x_", bare[1:30], "-2"), paste0("x_", bare[1:30], "-1"))
  expect_identical(quietly(sce_of(cells), two)$guide_id, calls$cells$guide_id[c(31:60, 1:30)])
  # Names that match as they are win over every other way.
  expect_identical(
    quietly(sce_of(c(paste0(bare[1], "-1"), paste0("S2_", bare[1], "-1"))), calls, join = "left")$guide_id,
    c(calls$cells$guide_id[1L], NA)
  )
})

test_that("what could be two cells is refused, and `cells` tells them apart", {
  bare <- barcodes(60)
  calls <- awkward_calls()
  both <- sce_of(c(paste0("S1_", bare[1:5], "-1"), paste0("S2_", bare[1:5], "-1")))
  in_two <- take_cells(calls, 1:4, paste0(c("S1_", "S2_"), bare[c(1, 1, 2, 2)], "-1"))
  first <- quietly(both, calls, cells = function(cell) paste0("S1_", cell), join = "left")
  expect_identical(first$guide_id, c(calls$cells$guide_id[1:5], rep(NA, 5L)))
  has_guides <- sce_of(calls$cells$cell_barcode)
  SingleCellExperiment::altExp(has_guides, "guides") <- SingleCellExperiment::SingleCellExperiment(
    list(counts = calls$counts[1:3, ])
  )
  named <- has_guides
  SingleCellExperiment::altExpNames(named) <- "CRISPR"
  expect_snapshot({
    error_text("names", attach_calls(both, calls))
    error_text("names", attach_calls(sce_of(paste0(bare[1:5], "-1")), in_two))
    # Two samples, no barcode twice: those of the second are there by chance.
    error_text("names", attach_calls(sce_of(paste0(rep(c("S1_", "S2_"), c(5, 2)), bare[1:7], "-1")), calls))
    error_text("names", attach_calls(sce_of(c("b", "a", "d", "c")), calls))
    error_text("names", attach_calls(both, calls, cells = function(cell) "S1"))
    error_text("names", attach_calls(has_guides, calls))
    error_text("names", attach_calls(named, calls, "CRISPR"))
    error_text("argument", attach_calls(both, calls, cells = "S1_"))
    error_text("argument", attach_calls(both, calls, join = "outer"))
    error_text("argument", attach_calls(both, calls$cells))
    error_text("argument", attach_calls(data.frame(), calls))
  })
})

test_that("calls go to the experiment that has the guides already", {
  calls <- awkward_calls()
  x <- sce_of(rev(calls$cells$cell_barcode))
  SingleCellExperiment::altExp(x, "perturbations") <- SingleCellExperiment::SingleCellExperiment(
    list(counts = calls$counts[10:1, 60:1])
  )
  expect_message(y <- attach_calls(x, calls), NA)
  expect_identical(SingleCellExperiment::altExpNames(y), "perturbations")
  expect_identical(
    SummarizedExperiment::assay(SingleCellExperiment::altExp(y, "perturbations"), "assigned"), calls$assigned[10:1, 60:1]
  )
  plain <- SummarizedExperiment::SummarizedExperiment(list(counts = rna_of(calls$cells$cell_barcode)))
  expect_message(plain <- attach_calls(plain, calls), "columns of the cells only", class = "kaichi_message_choice")
  expect_identical(plain$guide_id, calls$cells$guide_id)
  expect_identical(attach_calls("path.h5ad", calls), calls)
  expect_identical(attach_calls(calls$counts, calls), calls)
})

test_that("the calls come out of an object as they went in", {
  calls <- awkward_calls()
  calls$guides <- guide_table_of()
  # An object keeps the confidence of the first guide of a cell.
  expected <- calls
  other <- calls$pairs$guide_id != calls$cells$guide_id[match(calls$pairs$cell_barcode, calls$cells$cell_barcode)]
  expected$pairs$assignment_confidence[other] <- NA
  taken <- function(x, ...) suppressMessages(attached_calls(x, ...))
  expect_equal(taken(as_sce(calls)), expected)
  expect_equal(taken(attach_calls(sce_of(calls$cells$cell_barcode), calls)), expected)
  if (requireNamespace("SeuratObject", quietly = TRUE)) {
    x <- as_seurat(calls)
    expect_equal(taken(x), expected)
    expect_equal(taken(attach_calls(seurat_of(calls$cells$cell_barcode), calls)), expected)
    some <- subset(x, cells = colnames(x)[11:40])
    expect_equal(taken(some)$pairs, expected$pairs[expected$pairs$cell_barcode %in% colnames(some), ], ignore_attr = TRUE)
    # The file says the same as that of the calls.
    files <- tempfile(c("a", "b"), fileext = ".csv")
    write_calls(calls, files[1L], format = "crispat")
    suppressMessages(write_calls(x, files[2L], format = "crispat"))
    expect_identical(readLines(files[2L]), readLines(files[1L]))
  }
  # What was learnt of the whole screen, whatever its columns.
  calls$screen <- data.frame(anything = 0.25, is_so = NA)
  expect_identical(taken(as_sce(calls))$screen, calls$screen)
  if (requireNamespace("SeuratObject", quietly = TRUE)) expect_identical(taken(as_seurat(calls))$screen, calls$screen)
  expect_error(taken(sce_of("a")), class = "kaichi_error")
  main <- SingleCellExperiment::SingleCellExperiment(list(counts = calls$counts), mainExpName = "guides")
  expect_error(taken(main), "has no calls", class = "kaichi_error_argument")
  main <- quietly(main, calls)
  main$umi_count <- NULL
  expect_error(taken(main), "has no calls", class = "kaichi_error_argument")
  expect_error(attached_calls(calls$cells), class = "kaichi_error_argument")
})
