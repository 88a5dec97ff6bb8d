# Screens on which models have failed: every model on each, as one Markdown table.
#
#   Rscript tools/bench/accuracy/hard.R FOLDER [--models a,b] [--cases PATTERN]
#
#   FOLDER          has screens.csv (file, lanes, ceiling_f1), and FOLDER/<file>.h5ad with FOLDER/<file>.truth.csv.gz for each.
#                   Where `lanes` is TRUE, models that use a batch are given obs/batch. FOLDER/../formats/small.h5mu and
#                   FOLDER/../schraivogel/gRNA_counts.h5ad are used where they exist.
#   --models a,b    of guide_models() (default all)
#   --cases PATTERN rows whose name matches this regular expression only
#
# A row is a case. `what` says what the numbers are: F1 over (cell, guide) pairs, beside the ceiling; a number of called pairs; or the
# Jaccard index of two sets of called pairs. A random label is a batch that means nothing, and should change nothing. Models that use
# no batch are fitted without it. Seeds are fixed. Failures are listed below the table.
library(kaichi)

options <- local({
  given <- commandArgs(trailingOnly = TRUE)
  if (length(given) == 0L || startsWith(given[1L], "--")) stop("Rscript hard.R FOLDER [--models a,b] [--cases PATTERN]")
  values <- list(folder = given[1L], cases = "")
  given <- given[-1L]
  while (length(given) > 0L) {
    name <- sub("^--", "", given[1L])
    if (!name %in% c("models", "cases") || length(given) < 2L) stop("Unknown or incomplete option ", given[1L], ".")
    values[[name]] <- given[2L]
    given <- given[-(1:2)]
  }
  values
})
folder <- options$folder
registry <- guide_models()
models <- if (is.null(options$models)) registry$model else strsplit(options$models, ",", fixed = TRUE)[[1L]]
if (!all(models %in% registry$model)) stop("--models must be names of guide_models(): ", toString(registry$model), ".")
uses_batch <- function(model) registry$uses_batch[match(model, registry$model)]

called_pairs <- function(x, model, batch = NULL) {
  calls <- assign_guides(x, model = model, batch = if (uses_batch(model)) batch, verbose = FALSE)
  structure(paste(calls$pairs$cell_barcode, calls$pairs$guide_id), fits = calls$fits)
}
f1 <- function(called, true) sprintf("%.3f", 2 * sum(called %in% true) / (length(called) + length(true)))
jaccard <- function(a, b) {
  either <- length(union(a, b))
  sprintf("%.4f", if (either == 0L) 1 else length(intersect(a, b)) / either)
}
number <- function(called) format(length(called), big.mark = ",")
# A label that means nothing, the same one for the same number of cells.
random_label <- function(n_cells, n_labels) {
  old <- RNGkind("Mersenne-Twister", "Inversion", "Rejection")
  on.exit(do.call(RNGkind, as.list(old)))
  set.seed(n_labels)
  factor(sample(letters[seq_len(n_labels)], n_cells, replace = TRUE))
}

rows <- list()
failures <- character()
# `result` takes the name of a model and gives what stands in its cell.
case <- function(name, what, result, ceiling = NA) {
  if (!grepl(options$cases, name)) return(invisible())
  message(name)
  cells <- vapply(models, function(model) {
    tryCatch(result(model), error = function(e) {
      failures <<- c(failures, paste0(name, ", ", model, ": ", conditionMessage(e)))
      "error"
    })
  }, "")
  rows[[length(rows) + 1L]] <<- c(name, what, if (is.na(ceiling)) "-" else sprintf("%.3f", ceiling), cells)
}
pairs_of <- function(table) paste(table[[1L]], table[[2L]])

# Screens of another simulator.
screens <- utils::read.csv(file.path(folder, "screens.csv"))
for (at in seq_len(nrow(screens))) {
  screen <- screens[at, ]
  true <- pairs_of(utils::read.csv(gzfile(file.path(folder, paste0(screen$file, ".truth.csv.gz")))))
  path <- file.path(folder, paste0(screen$file, ".h5ad"))
  lanes <- isTRUE(as.logical(screen$lanes))
  case(
    paste0(screen$file, if (lanes) ", batch = lanes"), "F1",
    function(model) f1(called_pairs(path, model, if (lanes) "batch"), true), screen$ceiling_f1
  )
}

# Our own screens, with labels that mean nothing. 0 is no label.
labelled <- function(screen, n_labels, ...) {
  sim <- simulate_guides(screen, ...)
  true <- pairs_of(sim$truth)
  for (n in n_labels) {
    label <- if (n > 0L) random_label(ncol(sim$counts), n)
    name <- paste0(screen, " ", ncol(sim$counts), " x ", nrow(sim$counts), if (n > 0L) paste0(", random label of ", n) else ", no label")
    case(name, "F1", function(model) f1(called_pairs(sim$counts, model, label), true), sim$ceiling)
  }
}
labelled("easy", c(0, 2, 3), n_cells = 5000, n_guides = 100)
labelled("noisy", c(0, 3), n_cells = 3000, n_guides = 50)
labelled("high_moi", c(0, 3), n_cells = 3000, n_guides = 50)
labelled("dual_guide", c(0, 2), n_cells = 800, n_guides = 20)

bundled <- system.file("extdata", "guides.h5ad", package = "kaichi")
case("bundled guides.h5ad, no batch", "pairs", function(model) number(called_pairs(bundled, model)))
case("bundled guides.h5ad, batch = lane", "pairs", function(model) number(called_pairs(bundled, model, "lane")))

local({
  sim <- simulate_guides("high_moi", n_guides = 3, n_cells = 2000, seed = 1)
  case("high_moi 2000 x 3", "F1", function(model) f1(called_pairs(sim$counts, model), pairs_of(sim$truth)), sim$ceiling)
})
# One guide a cell, and nothing but its UMIs.
for (n_guides in c(2, 5, 20)) local({
  sim <- simulate_guides("easy", n_guides = n_guides, n_cells = 1000, moi = NA, ambient_mean = 0)
  case(paste0("clean 1000 x ", n_guides), "F1 (fits by status)", function(model) {
    called <- called_pairs(sim$counts, model)
    status <- table(attr(called, "fits")$status)
    paste0(
      f1(called, pairs_of(sim$truth)),
      if (length(status) > 0L) paste0(" (", paste(status, names(status), collapse = ", "), ")")
    )
  }, sim$ceiling)
})

small <- file.path(folder, "..", "formats", "small.h5mu")
if (file.exists(small)) {
  case("small.h5mu (15 to 25 are right)", "pairs", function(model) number(called_pairs(small, model)))
}
real <- file.path(folder, "..", "schraivogel", "gRNA_counts.h5ad")
if (file.exists(real) && grepl(options$cases, "schraivogel")) local({
  counts <- read_guides(real)
  label <- random_label(ncol(counts), 2)
  found <- lapply(stats::setNames(nm = models), function(model) {
    tryCatch(list(plain = called_pairs(counts, model), labelled = called_pairs(counts, model, label)), error = function(e) e)
  })
  of <- function(model) if (inherits(found[[model]], "error")) stop(found[[model]]) else found[[model]]
  case("schraivogel, no label", "pairs", function(model) number(of(model)$plain))
  case("schraivogel, random label of 2", "pairs", function(model) number(of(model)$labelled))
  case("schraivogel, without and with the label", "Jaccard", function(model) jaccard(of(model)$plain, of(model)$labelled))
})

# Barcodes that are no cells must not change the calls on the cells.
local({
  sim <- simulate_guides("easy", n_cells = 5000, n_guides = 100)
  n <- 30000L
  old <- RNGkind("Mersenne-Twister", "Inversion", "Rejection")
  set.seed(1)
  guide <- sample(nrow(sim$counts), n, replace = TRUE, prob = sim$guides$ambient_share)
  do.call(RNGkind, as.list(old))
  droplets <- Matrix::sparseMatrix(
    i = guide, j = seq_len(n), x = 1, dims = c(nrow(sim$counts), n),
    dimnames = list(rownames(sim$counts), sprintf("droplet_%05d", seq_len(n)))
  )
  more <- cbind(sim$counts, droplets)
  case("easy 5000 x 100, with 30,000 barcodes of one UMI", "Jaccard on the cells", function(model) {
    called <- called_pairs(more, model)
    jaccard(called_pairs(sim$counts, model), called[!startsWith(called, "droplet_")])
  })
})
local({
  sim <- simulate_guides("easy", n_cells = 5000, n_guides = 100, share_empty = 0.3, ambient_mean = 0.5)
  silent <- Matrix::colSums(sim$counts) == 0
  name <- paste0("easy 5000 x 100, 30 % empty, without its ", format(sum(silent), big.mark = ","), " cells of no UMI")
  case(name, "Jaccard", function(model) {
    jaccard(called_pairs(sim$counts, model), called_pairs(sim$counts[, !silent], model))
  })
})

table <- do.call(rbind, rows)
heads <- c("case", "what", "ceiling", models)
cat("kaichi ", as.character(packageVersion("kaichi")), "\n\n| ", paste(heads, collapse = " | "), " |\n|", strrep(" --- |", length(heads)), "\n", sep = "")
cat(paste0("| ", apply(table, 1L, paste, collapse = " | "), " |\n"), sep = "")
if (length(failures) > 0L) cat("\n### Failures\n\n", paste0("- ", failures, "\n"), sep = "")
