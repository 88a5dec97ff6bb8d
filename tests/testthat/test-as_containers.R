test_that("as_sce() holds counts, calls, scores, fits and targets, and can be assigned again", {
  skip_if_not_installed("SingleCellExperiment")
  counts <- small_screen()$counts
  scores <- score_guides(counts)
  calls <- decide_guides(scores)
  guides <- data.frame(guide_id = rev(rownames(counts)), target = LETTERS[1:10])
  expect_silent(x <- as_sce(calls, scores = scores, guides = guides))
  expect_true(methods::validObject(x))
  expect_identical(SummarizedExperiment::assayNames(x), c("counts", "assigned", "posterior"))
  expect_identical(SummarizedExperiment::assay(x, "counts"), counts)
  expect_identical(SummarizedExperiment::assay(x, "assigned"), calls$assigned)
  expect_identical(SummarizedExperiment::assay(x, "posterior"), scores$posterior)
  columns <- as.data.frame(SummarizedExperiment::colData(x))
  expect_equal(columns, calls$cells[-1L], ignore_attr = TRUE)
  rows <- SummarizedExperiment::rowData(x)
  expect_identical(rows$target, LETTERS[10:1])
  expect_identical(rows$warning, calls$fits$warning)
  expect_identical(rownames(x), rownames(counts))
  again <- suppressMessages(assign_guides(x))
  expect_identical(again$guide_id, calls$cells$guide_id)
  # Fits per batch are no rows of guides.
  beta <- as_sce(assign_guides(counts, model = "beta2"))
  expect_identical(names(SummarizedExperiment::rowData(beta)), "guide_id")
  # Names are as they were, whatever they are.
  expect_identical(rownames(as_sce(awkward_calls())), awkward_guides)
})

test_that("as_seurat() keeps the guides' own names beside Seurat's", {
  skip_if_not_installed("SeuratObject")
  calls <- awkward_calls()
  expect_silent(x <- as_seurat(calls, "CRISPR", guides = guide_table_of()))
  expect_true(methods::validObject(x))
  expect_identical(rownames(x[["CRISPR"]]), gsub("_", "-", awkward_guides))
  expect_identical(suppressMessages(guide_names(x)), stats::setNames(awkward_guides, gsub("_", "-", awkward_guides)))
  expect_identical(unname(x$guide_id), calls$cells$guide_id)
  mixscape <- cell_columns(calls, "mixscape", guides = guide_table_of())
  expect_identical(x@meta.data[names(mixscape)], mixscape)
  expect_identical(unname(as.matrix(SeuratObject::GetAssayData(x[["CRISPR"]], "counts"))), unname(as.matrix(calls$counts)))
  expect_identical(suppressMessages(guide_counts(x))$modality, "CRISPR")
  path <- tempfile(fileext = ".rds")
  saveRDS(x, path)
  expect_identical(suppressMessages(guide_names(readRDS(path))), suppressMessages(guide_names(x)))
  # One guide only.
  one <- assign_guides(calls$counts["NT#1", , drop = FALSE], model = "umi")
  expect_identical(unname(as_seurat(one)$guide_id), one$cells$guide_id)
})

test_that("as_sceptre() is a 0/1 matrix and a table of targets", {
  calls <- awkward_calls()
  got <- as_sceptre(calls, guides = transform(guide_table_of(), vector_id = rep(1:5, 2), chr = "chr1", other = 1))
  expect_identical(got$grna_matrix, calls$assigned)
  expect_identical(got$grna_target_data_frame, data.frame(
    grna_id = awkward_guides, grna_target = guide_table_of()$target, chr = "chr1", vector_id = rep(1:5, 2)
  ))
  expect_true(all(got$grna_matrix@x == 1))
})

test_that("what does not fit is an error", {
  skip_if_not_installed("SingleCellExperiment")
  skip_if_not_installed("SeuratObject")
  calls <- awkward_calls()
  alike <- awkward_calls(sub("STAT1-10", "STAT1_2", awkward_guides))
  scores <- score_guides(small_screen()$counts)
  expect_snapshot({
    error_text("argument", as_sce(calls$cells))
    error_text("argument", as_sce(calls, scores = calls))
    error_text("argument", as_sce(calls, scores = scores))
    error_text("argument", as_seurat(calls, 1))
    error_text("argument", as_seurat(calls, control = "NT"))
    error_text("argument", as_seurat(calls, "GDO", guide_table_of()))
    error_text("argument", as_sceptre(calls))
    error_text("names", as_seurat(alike))
  })
})

# 600 cells: a guide of each of two targets and two controls. Target A takes 40 genes down and 20 up in two of three of its cells,
# as guides do that do not always work; target B does nothing.
mixscape_screen <- function() {
  with_fixed_seed(1, {
    n <- 600L
    guides <- c("A_g1", "A_g2", "B_g1", "B_g2", "NT_1", "NT_2")
    carried <- rep_len(1:6, n)
    counts <- matrix(stats::rpois(6L * n, 0.02), 6L, dimnames = list(guides, barcodes(n)))
    counts[cbind(carried, seq_len(n))] <- 5 + stats::rnbinom(n, mu = 30, size = 3)
    works <- carried <= 2L & stats::runif(n) < 2 / 3
    mean <- matrix(stats::rgamma(300L, 2, 1) * 2, 300L, n)
    mean[1:40, works] <- mean[1:40, works] * 0.15
    mean[41:60, works] <- mean[41:60, works] * 5
    rna <- matrix(stats::rpois(300L * n, mean), 300L, dimnames = list(paste0("gene", 1:300), barcodes(n)))
    list(guides = as_counts(counts), rna = as_counts(rna), target = c("A", "A", "B", "B", "NT", "NT")[carried], works = works)
  })
}

test_that("Seurat's Mixscape runs on the columns and finds the cells with an effect", {
  skip_on_cran()
  skip_if_not_installed("Seurat")
  skip_if_not_installed("mixtools")
  screen <- mixscape_screen()
  calls <- assign_guides(screen$guides, model = "umi")
  guides <- data.frame(guide_id = rownames(screen$guides), target = c("A", "A", "B", "B", "non-targeting", "non-targeting"))
  x <- SeuratObject::CreateSeuratObject(screen$rna)
  x <- attach_calls(x, calls)
  x@meta.data <- cbind(x@meta.data, suppressMessages(cell_columns(calls, "mixscape", guides = guides)))
  expect_identical(unname(x$gene[calls$cells$n_guides_detected == 1L]), screen$target[calls$cells$n_guides_detected == 1L])
  x <- x[, !is.na(x$gene)]
  works <- screen$works[match(colnames(x), barcodes(600))]
  # Seurat 5 keeps the neighbours under the name that it is called by, which must be this one.
  CalcPerturbSig <- Seurat::CalcPerturbSig
  suppressMessages(suppressWarnings({
    x <- Seurat::NormalizeData(x, verbose = FALSE)
    x <- Seurat::FindVariableFeatures(x, nfeatures = 200, verbose = FALSE)
    x <- Seurat::ScaleData(x, verbose = FALSE)
    x <- Seurat::RunPCA(x, npcs = 10, verbose = FALSE)
    x <- CalcPerturbSig(x, gd.class = "gene", nt.cell.class = "NT", num.neighbors = 20, ndims = 10, verbose = FALSE)
    x <- Seurat::ScaleData(x, assay = "PRTB", do.scale = FALSE, verbose = FALSE)
    utils::capture.output(x <- Seurat::RunMixscape(x, labels = "gene", nt.class.name = "NT", fine.mode.labels = "guide_ID"))
  }))
  class <- unname(x$mixscape_class)
  expect_setequal(unique(class[x$gene == "B"]), "B NP")
  expect_setequal(unique(class[x$gene == "NT"]), "NT")
  expect_gt(mean((class == "A KO")[x$gene == "A"] == works[x$gene == "A"]), 0.95)
})
