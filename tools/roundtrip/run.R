# From every kind of input to every kind of output, each output read back by the program it is for.
#
#   Rscript tools/roundtrip/run.R PYTHON
#
# PYTHON has anndata, mudata, h5py and pandas; the environment variable KAICHI_TEST_CLI may name the command line of kaichi 0.2.0
# (cargo install kaichi-cli --version 0.2.0). A simulated screen is written as every input that read_guides() knows
# (by Python, but for the objects of R); the calls of each must be those of the matrix; what each gives is written in every format
# and read by anndata, MuData, kaichi 0.2.0's own decide, pandas, Seurat, SingleCellExperiment. Prints one line for each input.
suppressMessages({
  library(kaichi)
  library(Seurat)
  library(SingleCellExperiment)
})
python <- commandArgs(trailingOnly = TRUE)[1L]
if (is.na(python)) stop("Give a Python with anndata, mudata, h5py and pandas.")
script <- file.path(dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))), "peers.py")
run <- function(...) {
  said <- system2(python, c("-W ignore", shQuote(script), shQuote(c(...))), stdout = TRUE, stderr = TRUE)
  if (!is.null(attr(said, "status"))) stop(paste(c(paste(c(...), collapse = " "), said), collapse = "\n"))
  said
}

folder <- tempfile("roundtrip")
dir.create(folder)
sim <- simulate_guides("easy", n_cells = 300, n_guides = 12, seed = 5)
counts <- sim$counts
colnames(counts) <- sprintf("%s-1", vapply(seq_len(ncol(counts)), function(i) {
  paste(c("A", "C", "G", "T")[((i * 2654435) %/% 4^(15:0)) %% 4 + 1], collapse = "")
}, ""))
Matrix::writeMM(counts, file.path(folder, "counts.mtx"))
writeLines(rownames(counts), file.path(folder, "guides.txt"))
writeLines(colnames(counts), file.path(folder, "cells.txt"))
guides <- data.frame(
  guide_id = rownames(counts), target = rep(c("GATA1", "KLF1", "non-targeting"), each = 4),
  type = rep(c("targeting", "targeting", "non-targeting"), each = 4)
)
run("make", folder)

genes <- counts[1:3, ]
rownames(genes) <- paste0("GENE", 1:3)
inputs <- list(matrix = counts)
files <- list.files(file.path(folder, "inputs"), full.names = TRUE)
inputs[basename(files)] <- as.list(files)
inputs$SingleCellExperiment <- SingleCellExperiment(
  list(counts = genes), altExps = list(guides = SingleCellExperiment(list(counts = counts)))
)
inputs$Seurat <- suppressWarnings(CreateSeuratObject(genes))
inputs$Seurat[["GDO"]] <- suppressWarnings(CreateAssayObject(counts))

base <- assign_guides(counts)
pair_names <- function(calls) sort(paste(calls$pairs$cell_barcode, gsub("_", "-", calls$pairs$guide_id), calls$pairs$umi_count))
same <- function(a, b) if (!isTRUE(all.equal(a, b))) stop("differs: ", paste(all.equal(a, b), collapse = "; "))

outputs <- function(input, at) {
  dir.create(at)
  calls <- suppressMessages(assign_guides(input, guides = if (is.character(input) || is.matrix(input) || is(input, "Matrix")) guides))
  if (!inherits(calls, "guide_calls")) calls <- attached_calls(calls)
  same(pair_names(calls), pair_names(base))
  utils::write.csv(calls$pairs, file.path(at, "pairs.csv"), row.names = FALSE)
  done <- character()
  for (name in c("calls.h5ad", "calls.h5mu", "calls.csv", "calls.csv.gz")) {
    write_calls(calls, file.path(at, name))
    done <- c(done, run("check", at, name))
  }
  write_calls(calls, file.path(at, "rna.h5mu"), rna = file.path(folder, "rna.h5ad"))
  done <- c(done, run("check", at, "rna.h5mu"))
  write_calls(calls, file.path(at, "crispat.csv"), format = "crispat")
  done <- c(done, run("check", at, "crispat.csv"))
  write_calls(calls, file.path(at, "crispr_analysis"))
  done <- c(done, run("check", at, "crispr_analysis"))
  if (is.character(input)) {
    suppressMessages(assign_guides(input, output = file.path(at, "stream.h5ad")))
    done <- c(done, run("check", at, "stream.h5ad"))
  }
  sce <- as_sce(calls)
  same(pair_names(attached_calls(sce)), pair_names(base))
  seurat <- suppressWarnings(as_seurat(calls))
  same(pair_names(attached_calls(seurat)), pair_names(base))
  sceptre <- as_sceptre(calls, guides = transform(guides, guide_id = rownames(calls$counts)))
  same(unname(Matrix::colSums(sceptre$grna_matrix)), as.numeric(calls$cells$n_guides_detected))
  joined <- suppressMessages(attach_calls(SingleCellExperiment(list(counts = genes)), calls))
  same(joined$n_guides_detected, calls$cells$n_guides_detected)
  of <- transform(guides, guide_id = rownames(calls$counts))
  for (format in c("mixscape", "scperturb", "cellxgene", "pertpy", "igvf", "replogle", "geomux")) {
    columns <- suppressMessages(cell_columns(
      calls, format,
      guides = if (format %in% c("mixscape", "scperturb", "cellxgene")) of,
      strategy = if (format == "cellxgene") "CRISPR interference screen"
    ))
    same(rownames(columns), colnames(counts))
  }
  c(done, "as_sce", "as_seurat", "as_sceptre", "attach_calls", "cell_columns (7)")
}

failed <- 0L
for (name in names(inputs)) {
  said <- tryCatch(outputs(inputs[[name]], file.path(folder, paste0("out-", name))), error = function(e) {
    failed <<- failed + 1L
    paste("FAILED:", conditionMessage(e))
  })
  cat(sprintf("%-28s -> %s\n", name, paste(said, collapse = ", ")))
}
cat(length(inputs) - failed, "inputs passed,", failed, "failed\n")
quit(status = if (failed > 0L) 1L else 0L)
