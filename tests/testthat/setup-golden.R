# Calls and posteriors of every model on the bundled file, as tools/fixtures/write_golden.R keeps them in fixtures/golden.csv:
# a row for each pair that some model calls or gives 0.1 or more, a column of calls (0, 1) and, of mixtures, one of posteriors.
golden_columns <- function(counts) {
  models <- guide_models()
  # Of each stored count.
  cell <- rep(seq_len(ncol(counts)), diff(counts@p))
  at <- cbind(counts@i + 1L, cell)
  columns <- data.frame(cell_barcode = colnames(counts)[cell], guide_id = rownames(counts)[at[, 1L]])
  for (model in models$model) {
    if (models$confidence[models$model == model] == "posterior") {
      scores <- suppressMessages(score_guides(counts, model))
      calls <- decide_guides(scores)
      columns[[paste0(model, "_score")]] <- round(as.matrix(scores$posterior)[at], 6L)
    } else {
      calls <- suppressMessages(assign_guides(counts, model))
    }
    columns[[paste0(model, "_call")]] <- as.integer(as.matrix(calls$assigned)[at])
  }
  columns
}

golden_rows <- function(columns) rowSums(columns[-(1:2)] >= 0.1) > 0
