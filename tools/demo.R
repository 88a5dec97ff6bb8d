# The main job on the bundled file, as `make demo` shows it.
library(kaichi)
options(width = 160)

heading <- function(text) cat("\n", text, "\n", strrep("-", nchar(text)), "\n", sep = "")

path <- system.file("extdata", "guides.h5ad", package = "kaichi", mustWork = TRUE)

heading("guide_models()")
models <- guide_models()
print(models[, c("model", "family", "fitted_per", "about")], row.names = FALSE, right = FALSE)

heading("calls <- assign_guides(\"guides.h5ad\")")
time <- system.time(calls <- assign_guides(path))
print(calls)

heading("head(calls$cells)")
print(head(calls$cells), row.names = FALSE)

heading("summary(calls)")
print(summary(calls))

cat(sprintf("\n%d cells x %d guides in %.2f s.\n", ncol(calls$counts), nrow(calls$counts), time[["elapsed"]]))
