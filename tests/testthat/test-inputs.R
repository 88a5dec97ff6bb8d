# Inputs as pipelines and people write them. Those of shared/data/inputs are one screen in many forms; without them the forms made
# here are tested.
quiet <- suppressMessages
text_of <- function(code) conditionMessage(tryCatch(quiet(code), kaichi_error = identity))
choices_of <- function(code) paste(capture_messages(code), collapse = "")

barcodes <- c("AAACCTGAGAAACC", "AAACCTGAGAAACG", "AAACCTGAGAAACT", "AAACCTGAGAAAGG")
small <- matrix(
  c(5, 0, 1, 0, 7, 0, 0, 0, 0, 2, 0, 31), 3, 4, dimnames = list(c("sgA_1", "sgB_1", "sgNT"), paste0(barcodes, "-1"))
)
as_dgc_matrix <- function(x) methods::as(methods::as(x, "CsparseMatrix"), "generalMatrix")
folder_of <- function(...) {
  folder <- tempfile("inputs")
  dir.create(folder)
  files <- list(...)
  for (name in names(files)) writeLines(files[[name]], file.path(folder, name))
  folder
}
csv_of <- function(x, ...) {
  file <- tempfile(fileext = ".csv")
  utils::write.csv(x, file, ...)
  file
}

test_that("the files of shared/data/inputs give what they should", {
  inputs <- dirname(schraivogel(file.path("..", "inputs", "README.md")))
  read <- function(name, ...) quiet(read_guides(file.path(inputs, name), ...))
  bare <- function(x) `colnames<-`(x, sub("-1$", "", colnames(x)))
  reference <- bare(read("reference_10x"))
  for (form in c(
    "mtx_scipy_unsigned", "alevin_fry", "layouts/geo3_sgRNA", "layouts/geo6_infix", "layouts/rquotes",
    "layouts/kb_kite/counts_unfiltered", "tables/cells_by_guides.csv", "tables/guides_by_cells.csv.gz"
  )) {
    expect_identical(bare(read(form)), reference, label = form)
  }
  expect_identical(rownames(read("layouts/parse/guide_DGE_filtered")), rownames(reference))
  expect_identical(read("counts_in_raw.h5ad", layer = "raw")@x, reference@x)
  expect_match(text_of(read("counts_in_raw.h5ad")), "layer = \"raw\"", fixed = TRUE)
  expect_identical(read("citeseqcount_unmapped")@x, reference@x)
  expect_match(text_of(read("guides.loom")), "is a loom file.*scanpy.read_loom")
  expect_match(text_of(read("guides.zarr")), "is a zarr store.*read_zarr")
  expect_match(text_of(read("rna_ensembl.h5ad")), "names genes, not guides")
  expect_identical(nrow(read("duplicate_genes.h5ad")), 8L)
  for (table in c("feature_reference.csv", "igvf_guide_metadata.tsv")) {
    calls <- quiet(assign_guides(file.path(inputs, "reference_10x"), "umi", guides = file.path(inputs, "guide_tables", table)))
    expect_identical(calls$guides$target[1:3], c("KLF1", "KLF1", "MYB"), label = table)
  }
})

test_that("a data.frame is a table of counts, wide or long", {
  wide <- as.data.frame(small, check.names = FALSE)
  expected <- assign_guides(small, "umi")
  same <- function(x, ...) expect_identical(quiet(assign_guides(x, "umi", ...)), expected)
  same(wide)
  same(as.data.frame(t(small)))
  same(data.frame(cell = colnames(small), t(small)))
  at <- expand.grid(guide_id = rownames(small), cell_barcode = colnames(small), stringsAsFactors = FALSE)
  long <- cbind(at, umi_count = as.vector(small))
  same(long)
  same(csv_of(wide))
  same(csv_of(t(small)))
  same(csv_of(long, row.names = FALSE))
  plain <- `dimnames<-`(small, list(letters[1:3], LETTERS[1:4]))
  expect_error(assign_guides(as.data.frame(plain)), "orientation = ", class = "kaichi_error_format")
  expect_identical(rownames(quiet(assign_guides(as.data.frame(plain), "umi", orientation = "guides_by_cells"))$counts), letters[1:3])
  expect_identical(rownames(quiet(assign_guides(as.data.frame(plain), "umi", guides = data.frame(guide_id = letters[1:3])))$counts), letters[1:3])
  expect_error(quiet(assign_guides(rbind(long, long[1, ]), "umi")), "stands more than once", class = "kaichi_error_format")
  expect_error(assign_guides(transform(long, umi_count = "a")), "must hold numbers", class = "kaichi_error_counts")
  expect_error(assign_guides(cbind(a = "x", b = "y", as.data.frame(t(small)))), "several columns of text", class = "kaichi_error_counts")
})

test_that("genes are refused in every container, and leftovers are no guide", {
  genes <- small
  rownames(genes) <- sprintf("ENSG%011d", 1:3)
  expect_error(assign_guides(genes), "3 of 3 features have Ensembl ids", class = "kaichi_error_names")
  expect_error(assign_guides(t(small)), "give t\\(x\\)", class = "kaichi_error_names")
  left <- rbind(small, unmapped = 9, no_match = 0)
  expect_message(calls <- assign_guides(left, "umi"), "Leaving out \"unmapped\", \"no_match\"", fixed = TRUE)
  expect_identical(calls, assign_guides(small, "umi"))
  if (requireNamespace("SingleCellExperiment", quietly = TRUE)) {
    make <- function(x, name) SingleCellExperiment::SingleCellExperiment(list(counts = x), mainExpName = name)
    expect_error(quiet(assign_guides(make(genes, "guides"))), "Ensembl", class = "kaichi_error")
    expect_error(quiet(assign_guides(make(small, "Gene Expression"))), "looks like guides", class = "kaichi_error_modality")
  }
})

test_that("guides among genes are found by the guide table", {
  mixed <- rbind(small, matrix(1, 4, 4, dimnames = list(sprintf("ENSG%011d", 1:4), colnames(small))))
  file <- csv_of(mixed)
  expect_error(quiet(read_guides(file)), "names genes", class = "kaichi_error_format")
  table <- data.frame(guide_id = rownames(small), target = c("A", "B", NA))
  expect_identical(as.matrix(quiet(read_guides(file, guides = table))), small)
  expect_identical(quiet(assign_guides(file, "umi", guides = table))$cells$target[1], "A")
})

test_that("the names of columns of others are known, and a table without targets says so", {
  ids <- rownames(small)
  tables <- list(
    cellranger = data.frame(id = ids, name = ids, target_gene_id = "E", target_gene_name = c("A", "B", "NT")),
    igvf = data.frame(guide_id = ids, spacer = c("AC", "AG", "AT"), intended_target_name = c("A", "B", "NT")),
    sceptre = data.frame(grna_id = ids, grna_target = c("A", "B", "NT"), vector_id = 1:3),
    crispat = data.frame(gRNA = ids, gene = c("A", "B", "NT")),
    replogle = data.frame(sgID_AB = ids, gene = c("A", "B", "NT"))
  )
  for (name in names(tables)) {
    expect_message(table <- read_guide_table(tables[[name]]), "as target", fixed = TRUE)
    expect_identical(table[c("guide_id", "target")], data.frame(guide_id = ids, target = c("A", "B", "NT")), label = name)
    expect_identical(quiet(read_guide_table(csv_of(tables[[name]], row.names = FALSE)))$target, table$target, label = name)
  }
  expect_identical(quiet(read_guide_table(tables$sceptre))$construct, c("1", "2", "3"))
  expect_message(read_guide_table(data.frame(guide_id = ids)), "no targets", fixed = TRUE)
  # Encodings and semicolons.
  lines <- c("guide_id;target", "sg\u00e9;A", "", ";")
  for (encoding in c("UTF-8", "UTF-16LE", "latin1")) {
    file <- tempfile(fileext = ".csv")
    writeBin(iconv(paste(lines, collapse = "\r\n"), "UTF-8", encoding, toRaw = TRUE)[[1L]], file)
    expect_identical(read_guide_table(file), data.frame(guide_id = "sg\u00e9", target = "A"), label = encoding)
  }
  # Libraries by sequence.
  crispick <- data.frame(Target.Gene.Symbol = c("A", "B"), sgRNA.Sequence = c("ACGTACGTACGTACGTACGT", "TTTTACGTACGTACGTACGT"))
  expect_identical(quiet(read_guide_table(crispick))$guide_id, crispick$sgRNA.Sequence)
  other <- `rownames<-`(small[1:2, ], c("AC", "AG"))
  expect_message(calls <- assign_guides(other, "umi", guides = tables$igvf[1:2, ]), "in the column \"sequence\"", fixed = TRUE)
  expect_identical(calls$guides$target, c("A", "B"))
})

test_that("files beside the matrix can be named", {
  folder <- folder_of(m.mtx = c("%%MatrixMarket matrix coordinate integer general", "3 4 1", "1 1 5"), a.txt = rownames(small), b.txt = barcodes)
  expect_error(quiet(read_guides(folder)), "Give that file as `features`", class = "kaichi_error_file")
  read <- function(...) quiet(assign_guides(folder, "umi", ..., features = file.path(folder, "a.txt"), barcodes = file.path(folder, "b.txt")))
  expect_identical(dimnames(read()$counts), list(rownames(small), barcodes))
  expect_error(assign_guides(small, features = "a.txt"), "`features` is for the path", class = "kaichi_error_argument")
})

test_that("several files are one screen, whose samples are the batches", {
  a <- csv_of(small)
  b <- csv_of(small[3:1, ] * 2)
  said <- choices_of(calls <- assign_guides(c(lane1 = a, lane2 = b), "poisson"))
  expect_match(said, "Taking the sample as `batch`", fixed = TRUE)
  cells <- c(paste0("lane1_", colnames(small)), paste0("lane2_", colnames(small)))
  expect_identical(calls$cells$cell_barcode, cells)
  expect_identical(calls$cells$sample, rep(c("lane1", "lane2"), each = 4L))
  expect_identical(calls$params$batches, c("lane1", "lane2"))
  both <- cbind(small, 2 * small)
  colnames(both) <- cells
  expect_identical(calls$counts, assign_guides(both, "umi")$counts)
  expect_identical(calls$pairs, assign_guides(both, "poisson", batch = rep(c("lane1", "lane2"), each = 4L))$pairs)
  none <- choices_of(calls <- assign_guides(c(lane1 = a, lane2 = b), "poisson", batch = FALSE))
  expect_no_match(none, "as `batch`", fixed = TRUE)
  expect_null(calls$params$batches)
  expect_no_match(choices_of(assign_guides(c(lane1 = a, lane2 = b), "umi")), "as `batch`", fixed = TRUE)

  # A sheet, of R or of a file.
  sheet <- data.frame(sample = c("lane1", "lane2"), path = c(a, b), dose = c(0.5, 2))
  calls <- quiet(assign_guides(sheet, "poisson", batch = "dose"))
  expect_identical(calls$cells$dose, rep(c(0.5, 2), each = 4L))
  expect_identical(calls$params$batches, c("0.5", "2"))
  of_file <- quiet(assign_guides(csv_of(transform(sheet, path = basename(path)), row.names = FALSE), "umi"))
  expect_identical(of_file$cells$dose, rep(c("0.5", "2"), each = 4L))
  scores <- quiet(score_guides(sheet, "poisson"))
  expect_identical(decide_guides(scores), quiet(assign_guides(sheet, "poisson")))
  expect_error(assign_guides(sheet["path"]), "no column \"sample\"", class = "kaichi_error_argument")

  other <- csv_of(`rownames<-`(small, c("sgA_1", "sgX", "sgNT")))
  expect_error(quiet(assign_guides(c(lane1 = a, lane2 = other))), "\"lane2\".*lacks \"sgB_1\" and has \"sgX\" more", class = "kaichi_error_names")
  union <- quiet(assign_guides(c(lane1 = a, lane2 = other), "umi", guides = "union"))
  expect_identical(rownames(union$counts), c("sgA_1", "sgB_1", "sgNT", "sgX"))
  # Written, and read again.
  file <- tempfile(fileext = ".h5ad")
  quiet(assign_guides(sheet, "umi", output = file))
  expect_identical(quiet(assign_guides(file, "poisson", batch = "sample"))$params$batches, c("lane1", "lane2"))
})

test_that("the suffix of a barcode is a batch on request", {
  aggr <- cbind(small, `colnames<-`(small, paste0(barcodes, "-2")))
  calls <- assign_guides(aggr, "poisson", batch = "barcode_suffix")
  expect_identical(calls, assign_guides(aggr, "poisson", batch = rep(c("1", "2"), each = 4L)))
  expect_identical(quiet(assign_guides(csv_of(aggr), "poisson", batch = "barcode_suffix"))$pairs, calls$pairs)
  expect_error(assign_guides(`colnames<-`(small, barcodes), "poisson", batch = "barcode_suffix"), "no number", class = "kaichi_error_batch")
})

# ---- joining ----

many <- function(n, start = 0L) {
  bases <- c("A", "C", "G", "T")
  vapply(start + seq_len(n), function(k) paste0(bases[(k * 7919L) %/% 4L^(0:15) %% 4L + 1L], collapse = ""), "")
}
calls_of <- function(cells, times = 10) {
  counts <- matrix(0, 2, length(cells), dimnames = list(c("g1", "g2"), cells))
  counts[cbind(rep_len(1:2, length(cells)), seq_along(cells))] <- times
  assign_guides(counts, "umi")
}

test_that("hardly any match is no match, and 10x's translation of barcodes is tried", {
  skip_if_not_installed("SingleCellExperiment")
  rna <- function(cells) SingleCellExperiment::SingleCellExperiment(list(counts = matrix(1, 1, length(cells), dimnames = list("gene", cells))))
  cells <- paste0(many(200L), "-1")
  chance <- c(cells[1:4], paste0(many(196L, 50000L), "-1"))
  expect_error(quiet(attach_calls(rna(cells), calls_of(chance))), "Hardly any.*200.*: 4, which may be chance", class = "kaichi_error_names")
  expect_identical(ncol(quiet(attach_calls(rna(cells), calls_of(chance), min_match = 0))), 4L)
  translated <- cells
  substring(translated, 8L, 9L) <- chartr("ACGT", "TGCA", substring(cells, 8L, 9L))
  expect_message(x <- attach_calls(rna(cells), calls_of(translated)), "translation of feature barcodes", fixed = TRUE)
  expect_identical(x$guide_id, rep_len(c("g1", "g2"), 200L))
  expect_error(quiet(compare_calls(calls_of(cells), calls_of(chance))), "Hardly any", class = "kaichi_error_names")
  # Few cells of one side are no few matches.
  expect_identical(ncol(quiet(attach_calls(rna(cells[1:5]), calls_of(cells)))), 5L)
})

test_that("calls of a second sample leave those of the first", {
  skip_if_not_installed("SingleCellExperiment")
  cells <- paste0(many(20L), "-1")
  s1 <- calls_of(cells)
  s2 <- calls_of(rev(cells), 20)
  merged <- c(paste0("s1_", cells), paste0("s2_", cells))
  rna <- SingleCellExperiment::SingleCellExperiment(list(counts = matrix(1, 1, 40L, dimnames = list("gene", merged))))
  check <- function(x) {
    columns <- SummarizedExperiment::colData(x)
    expect_identical(columns$umi_count, rep(c(10L, 20L), each = 20L))
    expect_identical(columns$guide_id, c(rep_len(c("g1", "g2"), 20L), rep_len(c("g2", "g1"), 20L)))
    back <- attached_calls(x)
    expect_identical(nrow(back$pairs), 40L)
    expect_identical(back$pairs$umi_count, rep(c(10L, 20L), each = 20L))
    expect_identical(nrow(back$fits), 4L)
    expect_length(back$sets, 2L)
    expect_identical(unname(lapply(back$sets, `[[`, "cells")), list(merged[1:20], merged[40:21]))
    back
  }
  named <- function(sample) function(cell) paste0(sample, "_", cell)
  one <- quiet(attach_calls(rna, s1, join = "left", cells = named("s1")))
  expect_true(all(one$is_unassigned[21:40]))
  check(quiet(attach_calls(one, s2, join = "left", cells = named("s2"))))
  both <- check(quiet(attach_calls(rna, list(s1 = s1, s2 = s2))))
  expect_identical(both$fits$sample, rep(c("s1", "s2"), each = 2L))
  # Again, with other calls of one sample.
  again <- quiet(attach_calls(attach_calls(rna, list(s1 = s1, s2 = s2)), list(s2 = calls_of(cells, 30))))
  expect_identical(again$umi_count, rep(c(10L, 30L), each = 20L))
  expect_error(attach_calls(rna, list(s1, s2)), "must have a name", class = "kaichi_error_argument")
  # Experiments with calls each, put together.
  each <- function(sample, calls) {
    x <- SingleCellExperiment::SingleCellExperiment(list(counts = matrix(1, 1, 20L, dimnames = list("gene", paste0(sample, "_", calls$cells$cell_barcode)))))
    quiet(attach_calls(x, calls, cells = named(sample)))
  }
  bound <- attached_calls(SingleCellExperiment::cbind(each("s1", s1), each("s2", s2)))
  expect_identical(bound$pairs$umi_count, rep(c(10L, 20L), each = 20L))
  expect_identical(lengths(lapply(bound$sets, `[[`, "cells"), use.names = FALSE), c(20L, 20L))
})

test_that("calls of a second sample leave those of the first in a Seurat object", {
  skip_if_not_installed("SeuratObject")
  cells <- paste0(many(20L), "-1")
  merged <- c(paste0("s1_", cells), paste0("s2_", cells))
  rna <- suppressWarnings(SeuratObject::CreateSeuratObject(
    methods::as(matrix(1, 2, 40L, dimnames = list(c("gene1", "gene2"), merged)), "CsparseMatrix")
  ))
  x <- quiet(attach_calls(rna, list(s1 = calls_of(cells), s2 = calls_of(cells, 20))))
  expect_identical(unname(x$umi_count), rep(c(10L, 20L), each = 20L))
  back <- quiet(attached_calls(x))
  expect_identical(back$pairs$umi_count, rep(c(10L, 20L), each = 20L))
  expect_identical(back$fits$sample, rep(c("s1", "s2"), each = 2L))
})
