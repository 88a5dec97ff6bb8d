# A guide_calls with the calls `called` (guides x cells, scores, 0 where not called) and five UMIs per guide, or `counts`.
calls_of <- function(called, counts = 5 * (called > 0)) {
  scores <- structure(
    list(
      posterior = as_counts(called), counts = as_counts(counts), fits = data.frame(guide_id = rownames(called), status = "ok"),
      model = "poisson", params = list(), version = "1"
    ),
    class = "guide_scores"
  )
  scores$posterior <- scores$counts
  scores$posterior@x <- called[as.matrix(scores$counts) > 0]
  decide_guides(scores, 0.5)
}

guide_matrix <- function(..., guides = c("A_1", "A_2", "B_1", "B_2", "C_1")) {
  x <- cbind(...)
  dimnames(x) <- list(guides, paste0("cell-", seq_len(ncol(x))))
  x
}

dual_table <- function() {
  data.frame(guide_id = c("A_1", "A_2", "B_1", "B_2", "C_1"), construct = c("A", "A", "B", "B", "C"))
}

# A whole, nothing, A half, recombined, A whole with half of B, both halves lost, C of one guide, C with half of A.
eight_cells <- function() {
  guide_matrix(
    c(0.9, 0.8, 0, 0, 0), c(0, 0, 0, 0, 0), c(0, 0.7, 0, 0, 0), c(0.6, 0, 0, 0.9, 0), c(0.6, 0.7, 0.95, 0, 0),
    c(0, 0.8, 0, 0.8, 0), c(0, 0, 0, 0, 1), c(0.9, 0, 0, 0, 0.8)
  )
}

test_that("guides are joined by construct", {
  got <- call_constructs(calls_of(eight_cells()), dual_table())
  expect_s3_class(got, "construct_calls")
  expect_equal(got$cells, data.frame(
    cell_barcode = paste0("cell-", 1:8),
    construct = c("A", NA, "A", "B", "B", "A", "C", "A"),
    n_guides_of_construct = c(2L, NA, 1L, 1L, 1L, 1L, 1L, 1L),
    umi_count = c(10L, NA, 5L, 5L, 5L, 5L, 5L, 5L),
    confidence = c(0.98, NA, 0.7, 0.9, 0.95, 0.8, 1, 0.9),
    n_constructs = c(1L, 0L, 1L, 2L, 2L, 2L, 1L, 2L),
    is_unassigned = c(FALSE, TRUE, FALSE, FALSE, FALSE, FALSE, FALSE, FALSE),
    is_multi_construct = c(FALSE, FALSE, FALSE, TRUE, TRUE, TRUE, FALSE, TRUE),
    is_recombined = c(FALSE, FALSE, FALSE, TRUE, FALSE, TRUE, FALSE, FALSE)
  ))
  expect_equal(got$pairs, data.frame(
    cell_barcode = paste0("cell-", c(1, 3, 4, 4, 5, 5, 6, 6, 7, 8, 8)),
    construct = c("A", "A", "A", "B", "A", "B", "A", "B", "C", "A", "C"),
    n_guides = c(2L, 1L, 1L, 1L, 2L, 1L, 1L, 1L, 1L, 1L, 1L),
    n_guides_total = c(2L, 2L, 2L, 2L, 2L, 2L, 2L, 2L, 1L, 2L, 1L),
    complete = c(TRUE, FALSE, FALSE, FALSE, TRUE, FALSE, FALSE, FALSE, TRUE, FALSE, TRUE),
    umi_count = c(10L, 5L, 5L, 5L, 10L, 5L, 5L, 5L, 5L, 5L, 5L),
    confidence = c(0.98, 0.7, 0.6, 0.9, 0.88, 0.95, 0.8, 0.8, 1, 0.9, 0.8)
  ))
  expect_true(methods::validObject(got$assigned))
  expect_identical(dimnames(got$assigned), list(c("A", "B", "C"), paste0("cell-", 1:8)))
  expect_identical(
    unname(as.matrix(got$assigned)),
    rbind(c(1, 0, 1, 1, 1, 1, 0, 1), c(0, 0, 0, 1, 1, 1, 0, 0), c(0, 0, 0, 0, 0, 0, 1, 1))
  )
  expect_identical(as.data.frame(got), got$cells)
  expect_identical(rownames(as.data.frame(got, row.names = got$cells$cell_barcode)), paste0("cell-", 1:8))
})

test_that("the best construct has the highest confidence, then the most UMIs, then the first row of the table", {
  called <- guide_matrix(c(0.8, 0, 0.8, 0, 0), c(0.8, 0, 0.8, 0, 0), c(0.6, 0.6, 0.8, 0, 0))
  counts <- guide_matrix(c(5, 0, 5, 0, 0), c(5, 0, 6, 0, 0), c(1, 1, 90, 0, 0))
  calls <- calls_of(called, counts)
  expect_identical(call_constructs(calls, dual_table())$cells$construct, c("A", "B", "A"))
  turned <- call_constructs(calls, dual_table()[5:1, ])
  expect_identical(turned$cells$construct, c("B", "B", "A"))
  expect_identical(rownames(turned$assigned), c("C", "B", "A"))
})

test_that("min_guides drops constructs, and recombination is seen all the same", {
  calls <- calls_of(eight_cells())
  expect_message(got <- call_constructs(calls, dual_table(), min_guides = 2), "1 construct, \"C\"", fixed = TRUE)
  expect_identical(got$cells$construct, c("A", NA, NA, NA, "A", NA, NA, NA))
  expect_identical(got$cells$n_constructs, c(1L, 0L, 0L, 0L, 1L, 0L, 0L, 0L))
  expect_identical(got$cells$is_recombined, call_constructs(calls, dual_table())$cells$is_recombined)
  expect_identical(got$pairs$complete, c(TRUE, TRUE))
  expect_identical(Matrix::colSums(got$assigned), stats::setNames(as.double(got$cells$n_constructs), got$cells$cell_barcode))
  expect_true(methods::validObject(got$assigned))
})

test_that("a library of one guide per construct gives back the calls of the guides", {
  calls <- calls_of(eight_cells())
  got <- call_constructs(calls, dual_table(), construct = "guide_id")
  expect_identical(got$cells$construct, calls$cells$guide_id)
  expect_identical(got$cells$n_constructs, calls$cells$n_guides_detected)
  expect_equal(got$cells$confidence, calls$cells$assignment_confidence)
  expect_equal(got$assigned, calls$assigned)
  expect_false(any(got$cells$is_recombined))
})

test_that("calls without any pair give cells without a construct", {
  got <- call_constructs(calls_of(0 * eight_cells(), 5 * (eight_cells() > 0)), dual_table())
  expect_true(all(got$cells$is_unassigned))
  expect_true(all(is.na(got$cells$construct)))
  expect_identical(dim(got$pairs), c(0L, 7L))
  expect_identical(dim(got$assigned), c(3L, 8L))
  expect_output(print(got), "unassigned:         8 (100.0 %)", fixed = TRUE)
})

test_that("the table may be a factor table, in any order, with guides that were not counted", {
  calls <- calls_of(eight_cells())
  table <- rbind(data.frame(guide_id = c("A_3", "D_1"), construct = c("A", "D")), dual_table())
  expect_identical(call_constructs(calls, table), call_constructs(calls, dual_table()))
  factors <- data.frame(lapply(dual_table(), factor))
  expect_identical(call_constructs(calls, factors), call_constructs(calls, dual_table()))
  numbered <- transform(dual_table(), vector = c(10, 10, 2, 2, 3))
  expect_identical(call_constructs(calls, numbered, "vector")$cells$construct, c("10", NA, "10", "2", "2", "10", "3", "10"))
})

test_that("the names that Seurat makes are recognised", {
  calls <- calls_of(eight_cells())
  renamed <- calls_of(guide_matrix(eight_cells(), guides = c("A-1", "A-2", "B-1", "B-2", "C-1")))
  expect_identical(call_constructs(renamed, dual_table()), call_constructs(calls, dual_table()))
  piped <- transform(dual_table(), guide_id = sub("_", "|", guide_id))
  expect_identical(call_constructs(renamed, piped), call_constructs(calls, dual_table()))
  # The own name comes first: A-1 is A-1, although A_1 would turn into it.
  both <- rbind(data.frame(guide_id = "A-1", construct = "own"), dual_table())
  expect_identical(call_constructs(renamed, both)$cells$construct[[8L]], "own")
  # A row that is taken by its own name is no candidate.
  mixed <- calls_of(guide_matrix(eight_cells(), guides = c("A_1", "A-1", "B_1", "B_2", "C_1")))
  expect_error(call_constructs(mixed, dual_table()), "\"A-1\"", fixed = TRUE, class = "kaichi_error_names")
})

test_that("constructs of a simulated dual-guide screen are found, and most recombined cells flagged", {
  sim <- simulate_guides("dual_guide", n_cells = 2000, n_guides = 40, seed = 7)
  calls <- assign_guides(sim$counts)
  got <- call_constructs(calls, sim$guides)
  carried <- paste(sim$truth$cell_barcode, sim$guides$construct[match(sim$truth$guide_id, sim$guides$guide_id)])
  called <- paste(got$pairs$cell_barcode, got$pairs$construct)
  expect_gt(mean(unique(carried) %in% called), 0.97)
  expect_gt(mean(called %in% carried), 0.97)
  # Truly recombined: several constructs, none with both guides.
  n <- tabulate(match(sub(" .*", "", unique(carried)), got$cells$cell_barcode), 2000L)
  whole <- tabulate(match(sub(" .*", "", carried[duplicated(carried)]), got$cells$cell_barcode), 2000L)
  recombined <- n > 1L & whole == 0L
  expect_gt(sum(recombined), 100)
  expect_gt(mean(got$cells$is_recombined[recombined]), 0.85)
  expect_gt(mean(recombined[got$cells$is_recombined]), 0.9)

  # The same by another way: a 0/1 product.
  member <- outer(unique(sim$guides$construct), sim$guides$construct, "==") * 1
  per_construct <- member %*% as.matrix(calls$assigned)
  expect_equal(unname(as.matrix(got$assigned)), unname((per_construct > 0) * 1))
  expect_identical(got$pairs$n_guides, as.integer(per_construct[per_construct > 0]))
  umis <- member %*% as.matrix(calls$assigned * calls$counts)
  expect_identical(got$pairs$umi_count, as.integer(umis[per_construct > 0]))
  p <- 1 - as.matrix(calls$assigned)
  p[p == 0] <- 1 - calls$pairs$assignment_confidence
  confidence <- apply(p, 2L, function(q) 1 - tapply(q, sim$guides$construct, prod))
  expect_equal(got$pairs$confidence, confidence[per_construct > 0], tolerance = 1e-12)
  expect_identical(unserialize(serialize(got, NULL)), got)
})

test_that("printing says how many cells have a construct", {
  expect_snapshot(call_constructs(calls_of(eight_cells()), dual_table()))
})

test_that("arguments and names that are wrong say so", {
  calls <- calls_of(eight_cells())
  table <- dual_table()
  with <- function(column, row, value) {
    table[row, column] <- value
    table
  }
  expect_snapshot({
    error_text("argument", call_constructs(calls$counts, table))
    error_text("argument", call_constructs(calls, as.matrix(table)))
    error_text("argument", call_constructs(calls, table, construct = "target"))
    error_text("argument", call_constructs(calls, table, construct = c("a", "b")))
    error_text("argument", call_constructs(calls, table["construct"]))
    error_text("argument", call_constructs(calls, data.frame()))
    error_text("argument", call_constructs(calls, transform(table, construct = TRUE)))
    error_text("argument", call_constructs(calls, table, min_guides = 0))
    error_text("argument", call_constructs(calls, table, min_guides = 1.5))
    error_text("argument", call_constructs(calls, table, min_guides = 3))
    error_text("names", call_constructs(calls, with("guide_id", 2, NA)))
    error_text("names", call_constructs(calls, with("guide_id", 4:5, "")))
    error_text("names", call_constructs(calls, with("construct", 3, NA)))
    error_text("names", call_constructs(calls, with("guide_id", 2, "A_1")))
    error_text("names", call_constructs(calls, table[-(2:3), ]))
    error_text("names", call_constructs(calls, table[0, ]))
    error_text("names", call_constructs(calls, transform(table, guide_id = paste0("x", guide_id))))
  })
  renamed <- calls_of(guide_matrix(eight_cells(), guides = c("A-1", "A-2", "B-1", "B-2", "C-1")))
  twice <- rbind(table, data.frame(guide_id = "A|1", construct = "A"))
  expect_snapshot(error_text("names", call_constructs(renamed, twice)))
})
