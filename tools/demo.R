# The main job on the bundled file, as `make demo` shows it.
library(kaichi)
options(width = 150)

heading <- function(text) cat("\n> ", text, "\n", sep = "")

path <- system.file("extdata", "guides.h5ad", package = "kaichi", mustWork = TRUE)
cat("\nA simulated screen: 600 cells in two lanes, 16 guides against 8 genes and 4 non-targeting controls.\n")

heading("calls <- assign_guides(\"guides.h5ad\")")
time <- system.time(calls <- assign_guides(path))[["elapsed"]]
print(calls)
cat(sprintf("  (%.2f s, reading the file included)\n", time))

heading("head(calls$cells)")
print(head(calls$cells), row.names = FALSE)

heading("summary(calls)")
print(summary(calls))

heading("head(summary(calls)$guides)")
print(head(summary(calls)$guides[1:6]), row.names = FALSE, digits = 3)

heading("Every model of guide_models() on the same cells")
models <- guide_models()
counted <- lapply(models$model, function(model) {
  cells <- assign_guides(path, model = model)$cells
  data.frame(
    one_guide = sum(cells$n_guides_detected == 1L), several = sum(cells$is_multi_infected),
    unassigned = sum(cells$is_unassigned)
  )
})
print(cbind(models["model"], do.call(rbind, counted), models["about"]), row.names = FALSE, right = FALSE)

cat(
  "\nNow with your own file, from this folder:  R_LIBS=.lib R\n",
  "  library(kaichi); calls <- assign_guides(\"your.h5ad\"); ?assign_guides\n",
  "Seurat and SingleCellExperiment: README.md. Which model when: vignettes/models.Rmd.\n",
  sep = ""
)
