# How far the models agree on a real screen, and cells in which they do not.
#   Rscript tools/bench/accuracy/schraivogel.R PATH [n]
# PATH is the gRNA_counts.h5ad of Schraivogel et al. 2020 as crispat has it in example_data/Schraivogel; n examples a side (3).
# Prints the Jaccard index of the called pairs of any two models, and for each two the median count and share of the pairs that
# only one of them calls, with the guide UMIs of the cells in which the first such pairs lie.
library(kaichi)

given <- commandArgs(trailingOnly = TRUE)
if (!length(given) %in% 1:2) stop("Rscript schraivogel.R PATH [n]")
n <- if (length(given) > 1L) as.integer(given[2L]) else 3L
models <- guide_models()$model

calls <- lapply(setNames(nm = models), function(model) assign_guides(given[1L], model))
counts <- calls[[1L]]$counts
depth <- Matrix::colSums(counts)
# A pair as the place of its count in the matrix.
pairs <- lapply(calls, function(call) {
  match(call$pairs$guide_id, rownames(counts)) + nrow(counts) * (match(call$pairs$cell_barcode, colnames(counts)) - 1)
})
jaccard <- outer(models, models, Vectorize(function(a, b) {
  length(intersect(pairs[[a]], pairs[[b]])) / length(union(pairs[[a]], pairs[[b]]))
}))
dimnames(jaccard) <- list(models, models)
print(round(jaccard, 3))

describe <- function(a, b) {
  only <- sort(setdiff(pairs[[a]], pairs[[b]]))
  cat("\n", a, " and not ", b, ": ", length(only), " pairs", sep = "")
  if (length(only) == 0L) return(cat("\n"))
  guide <- (only - 1) %% nrow(counts) + 1
  cell <- (only - 1) %/% nrow(counts) + 1
  umi <- counts[cbind(guide, cell)]
  cat(sprintf(", median %g UMIs, %.0f %% of their cell\n", stats::median(umi), 100 * stats::median(umi / depth[cell])))
  # Spread over the screen, not the first cells of one lane.
  for (at in unique(round(seq(1, length(only), length.out = n)))) {
    others <- sort(counts[-guide[at], cell[at]], decreasing = TRUE)
    others <- others[others > 0]
    cat("  ", umi[at], " beside ", if (length(others) > 0L) paste(utils::head(others, 5L), collapse = ", ") else "nothing",
      if (length(others) > 5L) ", ...", " (", rownames(counts)[guide[at]], " in ", colnames(counts)[cell[at]], ")\n", sep = "")
  }
}
for (a in models) for (b in setdiff(models, a)) describe(a, b)
