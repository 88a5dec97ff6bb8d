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
# Texts of errors, without the folder of the fixtures. Newer HDF5 says "synchronously", too.
expect_texts <- function(...) {
  texts <- c(...)
  expect_snapshot(writeLines(texts), transform = function(lines) gsub("fixtures/|synchronously ", "", lines))
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
    # A system-wide plugin is fine too.
    read <- tryCatch(read_guides(fixture(file)), kaichi_error_format = identity)
    if (!inherits(read, "condition")) {
      expect_identical(unname(as.matrix(read)), unname(truth))
      next
    }
    text <- error_text(stop(read))
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

# The fixtures of the other formats are written by tools/fixtures/write_formats.py: `truth` with a gene before each guide.
plain <- `dimnames<-`(truth, list(paste0("guide_", 1:5), colnames(truth)))
said <- function(code) {
  choices <- character()
  value <- withCallingHandlers(code, kaichi_message_choice = function(message) {
    choices <<- c(choices, conditionMessage(message))
    invokeRestart("muffleMessage")
  })
  list(value = value, choices = paste(choices, collapse = ""))
}
guide_table <- data.frame(
  guide_id = paste0("guide_", 1:5), target = c("T1", "T2", "T3", "T4", "Non-Targeting"),
  sequence = c("A", "AC", "ACG", "ACGT", "ACGT")
)

test_that("guides are taken from among the genes of a 10x .h5, and what it says of them", {
  read <- said(read_guide_file(fixture("tenx.h5")))
  expect_true(validObject(read$value$counts))
  expect_identical(as.matrix(read$value$counts), plain)
  expect_identical(read$value$guides, guide_table)
  expect_match(read$choices, "Taking the 5 features of the type \"CRISPR Guide Capture\" as guides; 5 of other types", fixed = TRUE)
  expect_identical(as.matrix(suppressMessages(read_guides(fixture("tenx-custom.h5"), feature_type = "Custom"))), plain)
  first <- suppressMessages(read_guides(fixture("tenx-several.h5"), feature_type = "CRISPR Guide Capture"))
  expect_identical(as.matrix(first), plain[1:3, ])
})

test_that("guides are taken from among the genes of an .h5ad, however it stores them", {
  for (file in fixtures("^mixed-")) {
    read <- said(read_guide_file(fixture(file), batch = "lane"))
    expect_identical(as.matrix(read$value$counts), plain, label = file)
    expect_identical(read$value$guides, guide_table[c("guide_id", "target")], label = file)
    expect_identical(read$value$batch, rep(c("a", "b"), each = 6), label = file)
    expect_match(read$choices, "5 of other types are left out", label = file)
  }
  expect_length(fixtures("^mixed-"), 3L)
  expect_match(error_text(read_guides(fixture("mixed-csr.h5ad"), feature_type = "Custom")), "\"Gene Expression\" \\(5\\)")
})

test_that("the modality of an .h5mu is found or named", {
  read <- said(read_guide_file(fixture("guides.h5mu"), batch = "lane"))
  expect_identical(as.matrix(read$value$counts), plain)
  expect_identical(read$value$guides, guide_table[c("guide_id", "target")])
  expect_match(read$choices, "Taking the modality \"gdo\"", fixed = TRUE)
  expect_silent(two <- read_guides(fixture("guides-several.h5mu"), modality = "crispr"))
  expect_identical(as.matrix(two), plain[1:2, ])
  # A verb has the same argument.
  calls <- suppressMessages(assign_guides(fixture("guides-several.h5mu"), "umi", modality = "crispr"))
  expect_identical(as.matrix(calls$counts), plain[1:2, ])
})

test_that("the molecules of molecule_info.h5 are counted for each cell and guide", {
  cells <- paste0("AAC", strsplit("ACGTNX", "")[[1L]], "-", rep(1:2, each = 6))
  all <- `colnames<-`(plain, cells)
  read <- said(read_guide_file(fixture("molecules.h5")))
  expect_identical(as.matrix(read$value$counts), all[, -c(1, 7)])
  expect_identical(read$value$guides, guide_table)
  expect_match(read$choices, "Taking the 10 cells that Cell Ranger called", fixed = TRUE)
  read <- said(read_guide_file(fixture("molecules-all.h5")))
  expect_identical(as.matrix(read$value$counts), all[, colSums(all) > 0])
  expect_match(read$choices, "barcodes with a UMI of a guide as cells", fixed = TRUE)
})

test_that("what cannot be read of these formats says why", {
  expect_texts(
    error_text(read_guides(fixture("tenx-custom.h5"))), error_text(read_guides(fixture("tenx-several.h5"))),
    error_text(read_guides(fixture("tenx.h5"), feature_type = "Antibody Capture")),
    error_text(read_guides(fixture("tenx-bad-shape.h5"))), error_text(read_guides(fixture("tenx-bad-index.h5"))),
    error_text(read_guides(fixture("tenx-bad-count.h5"))), error_text(read_guides(fixture("tenx-bad-twice.h5"))),
    error_text(read_guides(fixture("tenx-version-2.h5"))), error_text(read_guides(fixture("molecules-bad.h5"))),
    error_text(read_guides(fixture("guides-several.h5mu"))), error_text(read_guides(fixture("guides-none.h5mu"))),
    error_text(read_guides(fixture("guides.h5mu"), modality = "guide")),
    error_text(read_guides(fixture("guides.h5mu"), orientation = "cells_by_guides")),
    error_text(read_guides(fixture("tenx.h5"), layer = "counts")), error_text(read_guides(fixture("tenx.h5"), modality = "guide")),
    error_text(read_guide_file(fixture("tenx.h5"), batch = "lane")),
    error_text(read_guides(fixture("tenx.h5"), feature_type = 1)), error_text(read_guides(fixture("tenx.h5"), orientation = "rows")),
    error_text(read_guides(fixture("mixed-csr.h5ad"), modality = "guide")), error_text(read_guides(fixture("tenx.h5"), NULL, "guide"))
  )
})

new_folder <- function() {
  folder <- tempfile()
  dir.create(folder)
  folder
}
# A folder with a Matrix Market file of `matrix`, and files of these lines.
mtx_folder <- function(matrix, ..., name = "matrix.mtx", gzip = FALSE) {
  folder <- new_folder()
  files <- list(...)
  at <- which(matrix != 0, arr.ind = TRUE)
  files[[name]] <- c(
    "%%MatrixMarket matrix coordinate integer general", "% a comment", paste(c(dim(matrix), nrow(at)), collapse = " "),
    paste(at[, 1L], at[, 2L], matrix[at])
  )
  for (file in names(files)) {
    connection <- if (gzip) gzfile(file.path(folder, paste0(file, ".gz")), "wb") else file(file.path(folder, file), "wb")
    writeLines(files[[file]], connection)
    close(connection)
  }
  folder
}
features_tsv <- function(ids, types) paste(ids, toupper(ids), types, sep = "\t")

test_that("folders of 10x, STARsolo, CITE-seq-Count, Parse and kallisto give the same counts", {
  cells <- colnames(plain)
  mixed <- rbind(gene = 1, plain)
  v3 <- list(features.tsv = features_tsv(rownames(mixed), c("Gene Expression", rep("CRISPR Direct Capture", 5))), barcodes.tsv = cells)
  same <- function(folder, pattern) {
    for (path in c(folder, list.files(folder, "mtx", full.names = TRUE))) {
      read <- said(read_guides(path))
      expect_identical(as.matrix(read$value), plain, label = path)
      expect_match(read$choices, pattern, fixed = TRUE)
    }
  }
  for (gzip in c(TRUE, FALSE)) {
    same(do.call(mtx_folder, c(list(mixed, gzip = gzip), v3)), "Taking the 5 features of the type \"CRISPR Direct Capture\"")
    same(mtx_folder(plain, genes.tsv = paste(rownames(plain), "x", sep = "\t"), barcodes.tsv = cells, gzip = gzip), "as guides x cells")
  }
  same(mtx_folder(plain, features.tsv = rownames(plain), barcodes.tsv = cells), "5 features of \"features.tsv\", 12 cells")
  names(v3) <- paste0("GSM1_", names(v3))
  same(do.call(mtx_folder, c(list(mixed, name = "GSM1_matrix.mtx"), v3)), "GSM1_features.tsv")
  metadata <- c("bc_wells,sample", paste0(cells, ",\"s,", rep(1:2, 6), "\""))
  parse <- mtx_folder(
    t(plain),
    all_guides.csv = c("gene_id,gene_name,genome", paste0(",", rownames(plain), ",hg38")), all_genes.csv = c("gene_id", "g1"),
    cell_metadata.csv = metadata, name = "count_matrix.mtx"
  )
  same(parse, "as cells x guides: 5 features of \"all_guides.csv\", 12 cells of \"cell_metadata.csv\"")
  expect_identical(suppressMessages(read_guide_file(parse, batch = "sample"))$batch, paste0("s,", rep(1:2, 6)))
  same(
    mtx_folder(
      t(plain), cells_x_features.genes.txt = rownames(plain), cells_x_features.barcodes.txt = cells, name = "cells_x_features.mtx"
    ),
    "\"cells_x_features.mtx\" as cells x guides"
  )
})

test_that("a square Matrix Market file is read only when it is said how", {
  square <- plain[, 1:5]
  folder <- mtx_folder(square, features.tsv = rownames(square), barcodes.tsv = colnames(square))
  expect_error(read_guides(folder), "guides_by_cells.*cells_by_guides", class = "kaichi_error_format")
  expect_identical(as.matrix(suppressMessages(read_guides(folder, orientation = "guides_by_cells"))), square)
  other <- `dimnames<-`(t(square), dimnames(square))
  expect_identical(as.matrix(suppressMessages(read_guides(folder, orientation = "cells_by_guides"))), other)
})

test_that("the verbs have the choices of read_guides()", {
  square <- plain[, 1:5]
  folder <- mtx_folder(square, features.tsv = rownames(square), barcodes.tsv = colnames(square))
  other <- `dimnames<-`(t(square), dimnames(square))
  verbs <- list(
    function(...) assign_guides(..., model = "umi")$counts, function(...) score_guides(..., model = "quantiles")$counts
  )
  for (counts_of in verbs) {
    verb <- function(...) as.matrix(suppressMessages(counts_of(...)))
    expect_identical(verb(folder, orientation = "guides_by_cells"), square)
    expect_identical(verb(folder, orientation = "cells_by_guides"), other)
    expect_identical(verb(fixture("tenx-custom.h5"), feature_type = "Custom"), plain)
    expect_identical(verb(fixture("guides-several.h5mu"), modality = "crispr"), plain[1:2, ])
    expect_error(verb(plain, feature_type = "Custom"), "`feature_type` is for the path of a file", class = "kaichi_error_argument")
    expect_error(verb(plain, orientation = "rows"), "`orientation` is for the path", class = "kaichi_error_argument")
    expect_error(verb(folder, orientation = "rows"), "`orientation` must be one of", class = "kaichi_error_argument")
  }
  agreed <- suppressMessages(compare_models(fixture("tenx-custom.h5"), c("umi", "max"), feature_type = "Custom"))
  expect_identical(names(agreed), names(compare_models(plain, c("umi", "max"))))
  # Not in blocks, which know of no choices; and not lost on the way to a worker.
  out <- tempfile(fileext = ".h5ad")
  suppressMessages(assign_guides(fixture("mixed-csr.h5ad"), "umi", feature_type = "CRISPR Guide Capture", output = out))
  expect_identical(as.matrix(read_guides(out)), plain)
  skip_if_not_installed("BiocParallel")
  score <- function(...) {
    suppressMessages(score_guides(folder, "gauss", orientation = "cells_by_guides", control = model_control(gates = c(min_cells = 0)), ...))
  }
  expect_identical(score(BPPARAM = BiocParallel::SerialParam()), score())
})

test_that("long Matrix Market files are read in blocks, and a wrong line is named by its number", {
  set.seed(1)
  big <- Matrix::rsparsematrix(300, 22000, 0.25, rand.x = function(n) rpois(n, 2) + 1)
  dimnames(big) <- list(paste0("g", 1:300), paste0("c", 1:22000))
  folder <- new_folder()
  file <- file.path(folder, "matrix.mtx")
  Matrix::writeMM(big, file)
  expect_gt(file.size(file), 2 * 2^23)
  writeLines(rownames(big), file.path(folder, "features.tsv"))
  writeLines(colnames(big), file.path(folder, "barcodes.tsv"))
  expect_identical(suppressMessages(read_guides(folder)), big)
  lines <- readLines(file)
  at <- length(lines) - 5L
  lines[at] <- "1 1 2.5"
  writeLines(lines, file)
  expect_error(suppressMessages(read_guides(folder)), paste("line", at, "has the count 2.5"), class = "kaichi_error_counts")
})

test_that("broken Matrix Market folders are refused with what to do", {
  cells <- colnames(plain)
  text <- function(..., change = identity, matrix = plain) {
    folder <- mtx_folder(matrix, ...)
    file <- file.path(folder, "matrix.mtx")
    if (file.exists(file)) writeLines(change(readLines(file)), file)
    gsub(folder, "folder", suppressMessages(error_text(read_guides(folder))), fixed = TRUE)
  }
  changed <- function(change) text(features.tsv = rownames(plain), barcodes.tsv = cells, change = change)
  line <- function(n, new) changed(function(lines) replace(lines, n, new))
  empty <- new_folder()
  dir.create(file.path(empty, "filtered_feature_bc_matrix"))
  expect_texts(
    gsub(empty, "folder", error_text(read_guides(empty)), fixed = TRUE),
    text(features.tsv = rownames(plain), barcodes.tsv = cells, other.mtx = "", name = "another.mtx"),
    text(barcodes.tsv = cells), text(features.tsv = rownames(plain)),
    text(features.tsv = rownames(plain), barcodes.tsv = cells[-1]),
    text(features.tsv = replace(rownames(plain), 2, ""), barcodes.tsv = cells),
    text(features.tsv = replace(rownames(plain), 2, "guide_1"), barcodes.tsv = cells),
    text(features.tsv = rownames(plain), barcodes.tsv = replace(cells, 2, "cell_1")),
    text(features.tsv = features_tsv(rownames(plain), "Gene Expression"), barcodes.tsv = cells),
    text(features.tsv = sprintf("ENSG%011d", 1:5), barcodes.tsv = cells),
    text(features.tsv = c("a\tb", rownames(plain)[-1]), barcodes.tsv = cells),
    line(1, "%%MatrixMarket matrix array integer general"), line(3, "5 12"),
    line(5, "6 1 3"), line(5, "1 0 3"), line(5, "1 1"), line(5, "1 1 -3"), line(5, "1 1 x"), line(5, "1 1 0.5"), line(5, "1 1 3e9"),
    changed(function(lines) lines[-5]), changed(function(lines) c(lines, "1 1 1")),
    changed(function(lines) replace(lines, 5, lines[4])), changed(function(lines) lines[1:2])
  )
  # Whole numbers written otherwise are counts.
  folder <- mtx_folder(plain, features.tsv = rownames(plain), barcodes.tsv = cells, gzip = TRUE)
  file <- file.path(folder, "matrix.mtx.gz")
  lines <- sub("( [0-9]+)$", "\\1.0", readLines(file))
  lines[1:3] <- c("%%MatrixMarket matrix coordinate real general", "%", sub("[.]0$", "", lines[3]))
  connection <- gzfile(file, "wb")
  writeLines(lines, connection)
  close(connection)
  expect_identical(as.matrix(suppressMessages(read_guides(folder))), plain)
  writeBin(head(readBin(file, "raw", file.size(file)), -20), file)
  expect_error(suppressMessages(read_guides(folder)), "cut short", class = "kaichi_error")
})

test_that("a real folder and a real .h5mu are read as other code reads them", {
  folder <- file.path(Sys.getenv("KAICHI_TEST_DATA"), "formats")
  skip_if(!dir.exists(folder), "KAICHI_TEST_DATA has no formats")
  read <- said(read_guides(file.path(folder, "mtx")))
  other <- Matrix::readMM(file.path(folder, "mtx", "matrix.mtx.gz"))
  expect_identical(dim(read$value), c(12L, 20211L))
  expect_identical(unname(as.matrix(read$value)), unname(as.matrix(other)))
  read <- said(read_guides(file.path(folder, "small.h5mu")))
  expect_identical(dim(read$value), c(1L, 200L))
  expect_match(read$choices, "modality \"guide\"", fixed = TRUE)
})
