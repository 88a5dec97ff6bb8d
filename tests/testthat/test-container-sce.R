skip_if_not_installed("SingleCellExperiment")

genes_matrix <- function(cells = colnames(container_counts())) {
  matrix(rep(1:4, length.out = 4L * length(cells)), 4L, dimnames = list(paste0("gene", 1:4), cells))
}

sce_main <- function(...) SingleCellExperiment::SingleCellExperiment(list(counts = container_counts()), ...)

sce_alt <- function(name = "CRISPR Guide Capture", guides = list(counts = container_counts())) {
  x <- SingleCellExperiment::SingleCellExperiment(list(counts = genes_matrix()), mainExpName = "Gene Expression")
  SingleCellExperiment::altExp(x, name) <- SingleCellExperiment::SingleCellExperiment(guides)
  SummarizedExperiment::colData(x)$lane <- rep(c("a", "b"), 4L)
  x
}

# As DropletUtils::read10xCounts() makes them.
sce_mixed <- function() {
  x <- SingleCellExperiment::SingleCellExperiment(list(counts = rbind(genes_matrix(), as.matrix(container_counts()))))
  SummarizedExperiment::rowData(x)$Type <- rep(c("Gene Expression", "CRISPR Guide Capture"), c(4L, 3L))
  x
}

test_that("a plain SummarizedExperiment gives its counts and takes the calls", {
  x <- SummarizedExperiment::SummarizedExperiment(list(counts = container_counts()))
  expect_message(got <- guide_counts(x), "main experiment")
  expect_identical(got, list(counts = container_counts(), batch = NULL, covariate = NULL, modality = NULL))

  y <- attach_calls(x, calls_by_hand(got$counts), got$modality)
  expect_identical(class(y), class(x))
  expect_true(methods::validObject(y))
  columns <- SummarizedExperiment::colData(y)
  expect_identical(names(columns), call_names)
  expect_identical(columns$guide_id, c("GATA1-1", "GATA1-2", "NT-1", "GATA1-2", NA, NA, "GATA1-2", "NT-1"))
  expect_identical(columns$umi_count, c(9L, 7L, 30L, 12L, NA, NA, 25L, 6L))
  expect_identical(columns$n_guides_detected, c(1L, 1L, 1L, 2L, 0L, 0L, 1L, 1L))
  expect_identical(columns$is_multi_infected, 1:8 == 4L)
  assigned <- SummarizedExperiment::assay(y, "assigned")
  expect_s4_class(assigned, "dgCMatrix")
  expect_identical(as.matrix(assigned), (as.matrix(container_counts()) >= 5) * 1)
  expect_identical(SummarizedExperiment::assay(y, "counts"), container_counts())
  expect_identical(
    S4Vectors::metadata(y)$kaichi,
    list(
      model = "umi", params = list(min_umi = 5), version = "1",
      fits = data.frame(guide_id = rownames(container_counts()), status = "ok"), n_cells = 8L
    )
  )
})

test_that("guides in an altExp are found, and the calls go to the right places", {
  for (name in c("CRISPR Guide Capture", "CRISPR", "guides", "gRNA", "sgRNA_counts", "GDO")) {
    x <- sce_alt(name)
    SingleCellExperiment::altExp(x, "ADT") <- SingleCellExperiment::SingleCellExperiment(list(counts = genes_matrix()))
    expect_message(got <- guide_counts(x), name, fixed = TRUE)
    expect_identical(got$modality, name)
    expect_identical(got$counts, container_counts())
  }
  y <- attach_calls(x, calls_by_hand(got$counts), got$modality)
  expect_s4_class(y, "SingleCellExperiment")
  expect_true(methods::validObject(y))
  expect_identical(names(SummarizedExperiment::colData(y)), c("lane", call_names))
  guides <- SingleCellExperiment::altExp(y, "GDO")
  expect_identical(SummarizedExperiment::assayNames(guides), c("counts", "assigned"))
  expect_identical(sum(SummarizedExperiment::assay(guides, "assigned")), 7)
  expect_identical(S4Vectors::metadata(guides)$kaichi$model, "umi")
  expect_null(S4Vectors::metadata(y)$kaichi)
  expect_identical(names(SummarizedExperiment::colData(guides)), character())
  expect_identical(SummarizedExperiment::assayNames(y), "counts")
  expect_identical(SingleCellExperiment::altExp(y, "ADT"), SingleCellExperiment::altExp(x, "ADT"))
})

test_that("feature types say which experiment holds the guides, whatever its name", {
  x <- sce_alt("screen")
  features <- SingleCellExperiment::altExp(x)
  SummarizedExperiment::rowData(features)$Type <- "CRISPR Direct Capture"
  SingleCellExperiment::altExp(x, "screen") <- features
  expect_identical(suppressMessages(guide_counts(x))$modality, "screen")

  main <- sce_main(mainExpName = "pool")
  SummarizedExperiment::rowData(main)$feature_types <- factor("gRNA")
  SingleCellExperiment::altExp(main, "ADT") <- SingleCellExperiment::SingleCellExperiment(list(counts = genes_matrix()))
  expect_null(suppressMessages(guide_counts(main))$modality)
})

test_that("the name of the main experiment says guides, and can be given as modality", {
  x <- sce_alt("ADT")
  x <- SingleCellExperiment::swapAltExp(x, "ADT", saved = "Gene Expression")
  expect_error(guide_counts(x), class = "kaichi_error_modality")
  SingleCellExperiment::mainExpName(x) <- "pool"
  expect_silent(got <- guide_counts(x, modality = "pool"))
  expect_null(got$modality)
  expect_identical(got$counts, container_counts())
  SingleCellExperiment::mainExpName(x) <- "guides"
  expect_message(expect_identical(guide_counts(x)$counts, container_counts()), "main experiment")
})

test_that("splitAltExps is the way out that the error on mixed features names", {
  x <- sce_mixed()
  expect_error(guide_counts(x), "splitAltExps", class = "kaichi_error_modality")
  split <- SingleCellExperiment::splitAltExps(x, SummarizedExperiment::rowData(x)$Type, ref = "Gene Expression")
  got <- suppressMessages(guide_counts(split))
  expect_identical(got$modality, "CRISPR Guide Capture")
  expect_identical(got$counts, container_counts())
})

test_that("a wrong or ambiguous modality is an error that lists what there is", {
  two <- sce_alt("guides")
  SingleCellExperiment::altExp(two, "GDO") <- SingleCellExperiment::altExp(two, "guides")
  main_too <- SingleCellExperiment::SingleCellExperiment(list(counts = container_counts()), mainExpName = "CRISPR")
  SingleCellExperiment::altExp(main_too, "guides") <- SingleCellExperiment::altExp(two, "guides")
  none <- sce_alt("ADT")
  genes <- sce_mixed()[1:4, ]
  mixed <- sce_mixed()
  plain <- SummarizedExperiment::SummarizedExperiment(list(counts = genes_matrix()))
  SummarizedExperiment::rowData(plain)$Type <- "Gene Expression"
  expect_snapshot({
    error_text("modality", guide_counts(two))
    error_text("modality", guide_counts(main_too))
    error_text("modality", guide_counts(none))
    error_text("modality", guide_counts(none, modality = "guides"))
    error_text("modality", guide_counts(genes))
    error_text("modality", guide_counts(mixed))
    error_text("modality", guide_counts(plain))
    error_text("modality", guide_counts(plain, modality = "guides"))
    error_text("argument", guide_counts(none, modality = c("a", "b")))
  })
})

test_that("genes are refused also where the user names them", {
  x <- sce_alt()
  SummarizedExperiment::rowData(x)$Type <- "Gene Expression"
  expect_error(guide_counts(x, modality = "Gene Expression"), "holds genes", class = "kaichi_error_modality")
  # Other features may be meant, as with hashtags.
  SingleCellExperiment::altExp(x, "HTO") <- SingleCellExperiment::altExp(x, "CRISPR Guide Capture")
  hashtags <- SingleCellExperiment::altExp(x, "HTO")
  SummarizedExperiment::rowData(hashtags)$Type <- "Antibody Capture"
  SingleCellExperiment::altExp(x, "HTO") <- hashtags
  expect_identical(guide_counts(x, modality = "HTO")$modality, "HTO")
})

test_that("layer names the assay; without counts the only assay is taken, also in a rerun", {
  x <- SummarizedExperiment::SummarizedExperiment(list(umis = container_counts()))
  expect_identical(suppressMessages(guide_counts(x))$counts, container_counts())
  y <- attach_by_hand(x)
  expect_identical(suppressMessages(guide_counts(y))$counts, container_counts())

  unnamed <- SummarizedExperiment::SummarizedExperiment(container_counts())
  expect_null(SummarizedExperiment::assayNames(unnamed))
  expect_identical(suppressMessages(guide_counts(unnamed))$counts, container_counts())
  expect_identical(suppressMessages(guide_counts(attach_by_hand(unnamed)))$counts, container_counts())

  SummarizedExperiment::assay(x, "logcounts") <- log1p(container_counts())
  expect_identical(suppressMessages(guide_counts(x, layer = "umis"))$counts, container_counts())
  alt <- sce_alt("GDO", list(umis = container_counts(), logcounts = log1p(container_counts())))
  expect_snapshot({
    error_text("argument", suppressMessages(guide_counts(x)))
    error_text("argument", suppressMessages(guide_counts(x, layer = "raw")))
    error_text("argument", guide_counts(alt, modality = "GDO", layer = "counts"))
  })
  expect_error(guide_counts(alt, modality = "GDO", layer = "logcounts"), "cell_1", class = "kaichi_error_counts")
})

test_that("batch is a column of colData, run-length encoded too, or a vector", {
  x <- sce_alt()
  lanes <- factor(rep(c("a", "b"), 4L))
  expect_identical(suppressMessages(guide_counts(x, batch = "lane"))$batch, lanes)
  expect_identical(suppressMessages(guide_counts(x, batch = lanes))$batch, lanes)
  SummarizedExperiment::colData(x)$run <- S4Vectors::Rle(rep(c("r1", "r2"), each = 4L))
  expect_identical(suppressMessages(guide_counts(x, batch = "run"))$batch, factor(rep(c("r1", "r2"), each = 4L)))
  bare <- sce_main()
  expect_snapshot({
    error_text("batch", suppressMessages(guide_counts(x, batch = "sample")))
    error_text("batch", suppressMessages(guide_counts(bare, batch = "sample")))
  })
  SummarizedExperiment::colData(x)$lane[3L] <- NA
  expect_error(suppressMessages(guide_counts(x, batch = "lane")), "cell_3", class = "kaichi_error_batch")
})

test_that("covariate is a column of colData or a vector", {
  x <- sce_alt()
  rna <- seq(100, 800, 100)
  SummarizedExperiment::colData(x)$rna <- as.integer(rna)
  expect_identical(suppressMessages(guide_counts(x, covariate = "rna"))$covariate, rna)
  expect_identical(suppressMessages(guide_counts(x, covariate = rna))$covariate, rna)
  expect_snapshot(error_text("argument", suppressMessages(guide_counts(x, covariate = "depth"))))
})

test_that("a rerun replaces its own results and nothing else", {
  x <- sce_alt()
  SummarizedExperiment::colData(x)$guide_id <- factor("old")
  SummarizedExperiment::colData(x)$n_guides_detected <- "many"
  once <- attach_by_hand(x)
  expect_type(once$guide_id, "character")
  expect_type(once$n_guides_detected, "integer")
  once$mine <- 8:1
  twice <- attach_by_hand(once, version = "2")
  expect_identical(twice$mine, 8:1)
  expect_identical(twice$lane, x$lane)
  expect_setequal(names(SummarizedExperiment::colData(twice)), c("lane", call_names, "mine"))
  expect_identical(S4Vectors::metadata(SingleCellExperiment::altExp(twice))$kaichi$version, "2")
  expect_identical(
    SummarizedExperiment::assayNames(SingleCellExperiment::altExp(twice)), c("counts", "assigned")
  )
  expect_identical(attach_by_hand(twice, version = "2"), twice)
})

test_that("calls are matched by the names of cells and guides", {
  x <- sce_main()
  calls <- calls_by_hand(container_counts())
  shuffled <- x[3:1, c(5, 1, 8, 2, 7, 3, 6, 4)]
  expect_identical(attach_calls(shuffled, calls), attach_calls(x, calls)[3:1, c(5, 1, 8, 2, 7, 3, 6, 4)])

  expect_message(
    some <- attach_calls(x, calls_by_hand(container_counts()[, c(4, 1)]), join = "left"), "Calls for 2 of the 8 cells"
  )
  columns <- SummarizedExperiment::colData(some)
  expect_identical(columns$guide_id, c("GATA1-1", NA, NA, "GATA1-2", NA, NA, NA, NA))
  expect_identical(columns$is_unassigned, !1:8 %in% c(1L, 4L))
  expect_identical(columns$n_guides_detected, c(1L, 0L, 0L, 2L, 0L, 0L, 0L, 0L))
  expect_identical(columns$is_multi_infected, 1:8 == 4L)
  expect_identical(unname(Matrix::colSums(SummarizedExperiment::assay(some, "assigned"))), c(1, 0, 0, 2, 0, 0, 0, 0))

  other_cells <- x
  colnames(other_cells) <- letters[1:8]
  other_guides <- x
  rownames(other_guides) <- LETTERS[1:3]
  SingleCellExperiment::mainExpName(other_guides) <- "guides"
  expect_snapshot({
    error_text("names", attach_calls(other_cells, calls))
    error_text("names", attach_calls(other_guides, calls))
  })
})

test_that("matrices of other classes give the same counts", {
  expected <- container_counts()
  matrices <- list(
    as.matrix(expected),
    methods::as(expected, "TsparseMatrix"),
    methods::as(expected, "RsparseMatrix")
  )
  if (requireNamespace("DelayedArray", quietly = TRUE)) matrices <- c(matrices, DelayedArray::DelayedArray(expected))
  for (matrix in matrices) {
    x <- sce_alt("guides", list(counts = matrix))
    expect_identical(suppressMessages(guide_counts(x))$counts, expected)
    y <- attach_by_hand(x)
    expect_identical(class(SummarizedExperiment::assay(SingleCellExperiment::altExp(y), "counts")), class(matrix))
    expect_identical(sum(SummarizedExperiment::assay(SingleCellExperiment::altExp(y), "assigned")), 7)
  }
})

test_that("an altExp without column names takes the cells of the main experiment", {
  x <- sce_alt()
  bare <- container_counts()
  colnames(bare) <- NULL
  SingleCellExperiment::altExp(x, "GDO", withDimnames = FALSE) <-
    SummarizedExperiment::SummarizedExperiment(list(counts = bare))
  got <- guide_counts(x, modality = "GDO")
  expect_identical(got$counts, container_counts())
  y <- attach_calls(x, calls_by_hand(got$counts), "GDO")
  expect_null(colnames(SingleCellExperiment::altExp(y, "GDO", withDimnames = FALSE)))
  expect_identical(
    SummarizedExperiment::assay(SingleCellExperiment::altExp(y, "GDO"), "assigned"), calls_by_hand(got$counts)$assigned
  )
})

test_that("a subclass stays one", {
  methods::setClass(
    "ScreenExperiment", contains = "SingleCellExperiment", slots = c(pool = "character"), where = globalenv()
  )
  on.exit(methods::removeClass("ScreenExperiment", where = globalenv()))
  x <- methods::new("ScreenExperiment", sce_main(), pool = "A375")
  y <- attach_by_hand(x)
  expect_s4_class(y, "ScreenExperiment")
  expect_identical(y@pool, "A375")
  expect_identical(y$umi_count, c(9L, 7L, 30L, 12L, NA, NA, 25L, 6L))
})

test_that("the enriched object can be subset, saved and read back", {
  x <- attach_by_hand(sce_alt())
  some <- x[, c("cell_4", "cell_2")]
  expect_identical(some$guide_id, c("GATA1-2", "GATA1-2"))
  expect_identical(dim(SummarizedExperiment::assay(SingleCellExperiment::altExp(some), "assigned")), c(3L, 2L))
  path <- tempfile(fileext = ".rds")
  on.exit(unlink(path))
  saveRDS(x, path)
  expect_identical(readRDS(path), x)
})

test_that("an object read back where its package is not loaded is still known", {
  skip_if_not_installed("kaichi")
  path <- tempfile(fileext = ".rds")
  script <- tempfile(fileext = ".R")
  on.exit(unlink(c(path, script)))
  saveRDS(sce_alt(), path)
  writeLines(c(
    "stopifnot(!isNamespaceLoaded(\"SingleCellExperiment\"))",
    sprintf("cat(dim(kaichi:::guide_counts(readRDS(%s))$counts))", deparse(normalizePath(path, "/")))
  ), script)
  libraries <- paste0("R_LIBS=", paste(.libPaths(), collapse = .Platform$path.sep))
  rscript <- file.path(R.home("bin"), "Rscript")
  seen <- system2(rscript, c("--vanilla", script), stdout = TRUE, stderr = FALSE, env = libraries)
  expect_identical(seen, "3 8")
})

test_that("assign_guides() gives an experiment the calls of its counts", {
  calls <- assign_guides(container_counts(), model = "umi")
  for (x in list(sce_main(), sce_alt())) {
    y <- suppressMessages(assign_guides(x, model = "umi"))
    expect_identical(class(y), class(x))
    for (name in call_names) expect_identical(y[[name]], calls$cells[[name]])
    guides <- if (length(SingleCellExperiment::altExpNames(y)) > 0L) SingleCellExperiment::altExp(y) else y
    expect_identical(SummarizedExperiment::assay(guides, "assigned"), calls$assigned)
    expect_identical(S4Vectors::metadata(guides)$kaichi, c(unclass(calls)[c("model", "params", "version", "fits", "screen")], n_cells = 8L))
  }
  named <- assign_guides(x, model = "poisson", batch = "lane", modality = "CRISPR Guide Capture")
  given <- assign_guides(x, model = "poisson", batch = x$lane, modality = "CRISPR Guide Capture")
  expect_identical(named, given)
  expect_identical(S4Vectors::metadata(SingleCellExperiment::altExp(named))$kaichi$params$batches, c("a", "b"))
  scores <- suppressMessages(score_guides(x))
  expect_identical(scores$counts, container_counts())
})

test_that("an assay that is no matrix is refused", {
  skip_if_not_installed("SingleCellExperiment")
  counts <- as.data.frame(matrix(1:4, 2, dimnames = list(c("g1", "g2"), c("c1", "c2"))))
  se <- SummarizedExperiment::SummarizedExperiment(list(counts = counts))
  expect_error(assign_guides(se), "data.frame.*as.matrix", class = "kaichi_error_counts")
})
