# Counts and calls for the tests of the containers: 3 guides, 8 cells; calls by hand, so that they test the way in and out
# of a container and no model.
container_counts <- function(guides = c("GATA1-1", "GATA1-2", "NT-1")) {
  counts <- matrix(
    c(
      9, 0, 1,
      0, 7, 0,
      0, 1, 30,
      8, 12, 0,
      0, 0, 0,
      1, 0, 1,
      0, 25, 0,
      0, 0, 6
    ),
    nrow = 3L, dimnames = list(guides, paste0("cell_", 1:8))
  )
  methods::as(methods::as(counts, "CsparseMatrix"), "generalMatrix")
}

# A guide_calls with every guide of five or more UMIs, as decide_guides() makes them.
calls_by_hand <- function(counts, version = "1") {
  assigned <- methods::as(methods::as(counts >= 5, "dMatrix"), "generalMatrix")
  n <- as.integer(Matrix::colSums(assigned))
  top <- apply(as.matrix(counts), 2L, which.max)
  none <- n == 0L
  cells <- data.frame(
    cell_barcode = colnames(counts),
    guide_id = ifelse(none, NA_character_, rownames(counts)[top]),
    umi_count = ifelse(none, NA_integer_, as.integer(counts[cbind(top, seq_along(top))])),
    assignment_confidence = ifelse(none, NA_real_, 0.5 + seq_along(top) / 100),
    is_unassigned = none,
    is_multi_infected = n > 1L,
    n_guides_detected = n,
    set_probability = seq_along(top) / 10
  )
  structure(
    list(
      cells = cells, pairs = data.frame(), assigned = assigned, counts = counts,
      fits = data.frame(guide_id = rownames(counts), status = "ok"),
      model = "umi", params = list(min_umi = 5), version = version
    ),
    class = "guide_calls"
  )
}

call_names <- c(
  "guide_id", "umi_count", "assignment_confidence", "is_unassigned", "is_multi_infected", "n_guides_detected",
  "set_probability"
)

# GET and PUT as the verbs do them.
attach_by_hand <- function(x, ..., version = "1") {
  got <- suppressMessages(guide_counts(x, ...))
  attach_calls(x, calls_by_hand(got$counts, version), got$modality)
}

# The text of an error, after its class was seen: the way that testthat prints an error changes between its versions.
error_text <- function(kind, code) cat(conditionMessage(expect_error(code, class = paste0("kaichi_error_", kind))))
