# Whole R sessions: a bar needs a terminal, and Ctrl-C a process to send it to.
screen_file <- function(env = parent.frame()) {
  file <- tempfile(fileext = ".rds")
  do.call(on.exit, list(bquote(unlink(.(file))), add = TRUE), envir = env)
  saveRDS(simulate_guides("easy", n_cells = 10000, n_guides = 300, seed = 1)$counts, file)
  file
}

# Lines of R, run with this session's libraries, on a pseudo-terminal or not; what it says, and its errors.
session <- function(code, terminal = FALSE, env = parent.frame()) {
  script <- tempfile(fileext = ".R")
  on.exit(unlink(script))
  libraries <- paste0(".libPaths(", paste(deparse(.libPaths()), collapse = ""), ")")
  writeLines(c(libraries, "library(kaichi)", code, "quit(\"no\")"), script)
  r <- file.path(R.home("bin"), "R")
  if (terminal) {
    if (!nzchar(Sys.which("script"))) skip("there is no script(1)")
    # With -f, an interactive R would read the terminal; it echoes what it reads.
    command <- paste(shQuote(r), "--interactive --vanilla --no-echo --no-readline <", shQuote(script))
    return(suppressWarnings(system2("script", c("-qec", shQuote(command), "/dev/null"), stdout = TRUE, stderr = TRUE, stdin = "/dev/null", timeout = 120)))
  }
  suppressWarnings(system2(r, c("--vanilla", "--no-echo", "-f", shQuote(script)), stdout = TRUE, stderr = TRUE))
}

test_that("a terminal has a bar, and nothing else has one", {
  skip_on_cran()
  skip_if_not_installed("cli")
  skip_on_os("windows")
  file <- screen_file()
  code <- function(...) {
    c(
      "options(cli.progress_show_after = 0)",
      sprintf("x <- readRDS(\"%s\")", file),
      sprintf("scores <- score_guides(x, \"neg_binomial\"%s)", paste0(sprintf(", %s", c(character(), ...)), collapse = "")),
      "cat(\"done\\n\")"
    )
  }
  shown <- paste(session(code(), terminal = TRUE), collapse = "\n")
  expect_match(shown, "Fitting guides")
  expect_match(shown, "/300")
  expect_match(shown, "done")
  for (silent in list(code("verbose = FALSE"), c("options(knitr.in.progress = TRUE)", code()))) {
    said <- paste(session(silent, terminal = TRUE), collapse = "\n")
    expect_match(said, "done")
    expect_no_match(said, "Fitting guides")
  }
  expect_identical(session(code()), "done")
  expect_match(paste(session(code("verbose = TRUE")), collapse = "\n"), "Fitting guides")
})

test_that("Ctrl-C stops the work, on.exit() runs, and the session lives", {
  skip_on_cran()
  skip_on_os("windows")
  folder <- tempfile("interrupt")
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  path <- function(name) file.path(folder, name)
  # Enough for a minute of work, on any machine.
  saveRDS(simulate_guides("easy", n_cells = 30000, n_guides = 1000, seed = 1)$counts, path("x.rds"))
  writeLines(
    c(
      paste0(".libPaths(", paste(deparse(.libPaths()), collapse = ""), ")"),
      "library(kaichi)",
      sprintf("x <- readRDS(\"%s\")", path("x.rds")),
      "f <- function() {",
      sprintf("  on.exit(writeLines(\"left\", \"%s\"))", path("left")),
      sprintf("  writeLines(as.character(Sys.getpid()), \"%s\")", path("ready")),
      "  assign_guides(x, \"neg_binomial\", control = model_control(starts = 200, tolerance = 1e-12, iterations = 10000), n_jobs = 1)",
      "}",
      "said <- tryCatch(f(), interrupt = function(condition) \"stopped\")",
      "alive <- nrow(assign_guides(x[1:5, ], \"poisson\")$fits)",
      sprintf("writeLines(c(said, alive), \"%s\")", path("after"))
    ),
    path("script.R")
  )
  run_behind(file.path(R.home("bin"), "R"), c("--vanilla", "--no-echo", "-f", shQuote(path("script.R"))))
  wait_for <- function(name, seconds) {
    end <- Sys.time() + seconds
    while (!file.exists(path(name)) && Sys.time() < end) Sys.sleep(0.05)
    expect_true(file.exists(path(name)), label = name)
    Sys.sleep(0.1)
  }
  wait_for("ready", 60)
  Sys.sleep(1)
  expect_false(file.exists(path("left")))
  tools::pskill(as.integer(readLines(path("ready"))), tools::SIGINT)
  wait_for("left", 5)
  wait_for("after", 30)
  expect_identical(readLines(path("after")), c("stopped", "5"))
})

test_that("verbose is checked", {
  x <- matrix(5, 2, 2, dimnames = list(c("g", "h"), c("a", "b")))
  for (bad in list(NA, "yes", c(TRUE, TRUE), 1)) {
    expect_error(assign_guides(x, verbose = bad), "verbose", class = "kaichi_error_argument")
    expect_error(score_guides(x, verbose = bad), "verbose", class = "kaichi_error_argument")
  }
})
