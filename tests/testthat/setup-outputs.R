# Calls, guides and other programs for the tests of what kaichi writes.

# Guide names as libraries have them: with every separator that formats use, quotes, commas and other letters.
awkward_guides <- c(
  "RAB1A_+_65356.23-P1P2", "chr1:100-120", "NT#1", "a,b", "say \"hi\"", "STAT1-2", "STAT1-10", "na\u00efve_1", "x y", "(m)G;7"
)

# 60 cells and 10 guides, none, one, two or three guides a cell; the model is umi, so that calls are counts of 5 or more.
awkward_calls <- function(guides = awkward_guides, ...) {
  n <- 60L
  counts <- matrix(0, length(guides), n, dimnames = list(guides, sprintf("%s-1", barcodes(n))))
  for (cell in seq_len(n)) {
    carried <- (cell + 3L * seq_len(cell %% 4L)) %% length(guides) + 1L
    counts[carried, cell] <- 5 + (cell * 7L) %% 41L + seq_along(carried)
    counts[(cell * 3L) %% length(guides) + 1L, cell] <- max(1, counts[(cell * 3L) %% length(guides) + 1L, cell])
  }
  counts[, 8L] <- 0
  assign_guides(as_counts(counts), model = "umi", ...)
}

# Different barcodes of 16 nucleotides, the first all A.
barcodes <- function(n, length = 16L) {
  vapply(seq_len(n) - 1L, function(i) {
    paste(c("A", "C", "G", "T")[(i %/% 4^((length - 1L):0)) %% 4 + 1], collapse = "")
  }, "")
}

guide_table_of <- function(guides = awkward_guides) {
  data.frame(
    guide_id = guides,
    target = rep_len(c("RAB1A", "CD3E", "non-targeting"), length(guides)),
    type = rep_len(c("targeting", "targeting", "non-targeting"), length(guides))
  )
}

# R's own library path gives some Pythons a foreign libpython.
python_environment <- c("PYTHONUTF8=1", "LD_LIBRARY_PATH=")

# The Python to read files back with: KAICHI_TEST_PYTHON, else python3. Skips without it or its modules.
python_with <- function(...) {
  python <- Sys.getenv("KAICHI_TEST_PYTHON", unname(Sys.which("python3")))
  skip_if(python == "", "no Python")
  modules <- c(...)
  code <- paste0("import ", paste(modules, collapse = ", "))
  status <- suppressWarnings(
    system2(python, c("-c", shQuote(code)), stdout = FALSE, stderr = FALSE, env = python_environment)
  )
  skip_if(status != 0L, paste("no Python with", paste(modules, collapse = ", ")))
  python
}

# What a Python program prints, line by line. Its arguments are sys.argv[1] and so on.
run_python <- function(python, program, ...) {
  script <- tempfile(fileext = ".py")
  on.exit(unlink(script))
  writeLines(program, script)
  out <- suppressWarnings(
    system2(python, c("-W ignore", shQuote(script), shQuote(c(...))), stdout = TRUE, stderr = TRUE, env = python_environment)
  )
  if (!is.null(attr(out, "status"))) stop(paste(out, collapse = "\n"))
  Encoding(out) <- "UTF-8"
  out
}
