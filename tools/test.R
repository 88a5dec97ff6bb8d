# Runs tests/testthat against the installed package and closes with one line of counts.
library(testthat)
results <- as.data.frame(test_dir(
  "tests/testthat",
  package = "kaichi", load_package = "installed", reporter = check_reporter(), stop_on_failure = FALSE
))
failed <- sum(results$failed) + sum(results$error)
cat(sprintf("testthat: %d passed, %d failed, %d skipped\n", sum(results$passed), failed, sum(results$skipped)))
# No test at all is a failure too.
if (failed > 0 || sum(results$passed) == 0) quit(status = 1L)
