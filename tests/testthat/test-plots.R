skip_if_not_installed("ggplot2")

expect_drawn <- function(plot) {
  expect_s3_class(plot, "ggplot")
  expect_silent(built <- ggplot2::ggplot_build(plot))
  expect_s3_class(ggplot2::ggplotGrob(plot), "gtable")
  invisible(built)
}

pictures <- list(plot_guides_per_cell, plot_cells_per_guide, plot_confidence, plot_knee, plot_guide_pairs, plot_signal)

test_that("every picture is drawn of every model, of no call at all, and of an object with calls", {
  counts <- small_screen()$counts
  for (model in all_models()) {
    calls <- assign_guides(counts, model)
    for (picture in pictures) expect_drawn(picture(calls))
  }
  none <- assign_guides(counts, "umi", control = model_control(umi_threshold = 1e6))
  expect_identical(nrow(none$pairs), 0L)
  for (picture in c(pictures, plot_guide)) expect_drawn(picture(none))
  empty <- assign_guides(as_counts(matrix(0, 1, 2, dimnames = list("g", c("c", "d")))), "umi")
  for (picture in c(pictures, plot_guide)) expect_drawn(picture(empty))

  skip_if_not_installed("SingleCellExperiment")
  sce <- as_sce(assign_guides(counts))
  for (picture in c(pictures, plot_guide)) expect_drawn(picture(sce))
})

test_that("axes are named with their units", {
  calls <- assign_guides(small_screen()$counts)
  for (picture in c(pictures, plot_guide)) {
    plot <- picture(calls)
    built <- ggplot2::ggplot_build(plot)
    scales <- built$layout$panel_scales_y[[1L]]
    names <- c(plot$labels$y, if (!inherits(scales$name, "waiver")) scales$name)
    expect_match(paste(names, collapse = " "), "cells|UMIs|calls|pairs")
    expect_true(nzchar(plot$labels$title))
  }
})

test_that("guides per cell are beside the Poisson numbers of the MOI of summary()", {
  for (model in c("poisson_gauss", "umi", "ambient", "beta2")) {
    calls <- assign_guides(small_screen()$counts, model)
    moi <- summary(calls)$moi
    moi <- if (is.na(moi[["expected"]])) moi[["called"]] else moi[["expected"]]
    plot <- plot_guides_per_cell(calls)
    observed <- ggplot2::layer_data(plot, 1L)
    of_cell <- Matrix::colSums(calls$assigned)
    expect_equal(observed$ymax, vapply(observed$x, function(k) sum(of_cell == k), 0))
    expect_equal(sum(observed$ymax), 300)
    chance <- ggplot2::layer_data(plot, 3L)
    expect_equal(chance$y, 300 * stats::dpois(chance$x, moi), label = model)
  }
})

test_that("the knee has the guide UMIs at each rank, and the share of cells called", {
  calls <- assign_guides(simulate_guides("easy", n_cells = 3000, n_guides = 20)$counts)
  points <- plot_knee(calls)$data
  umis <- sort(Matrix::colSums(calls$counts), decreasing = TRUE)
  expect_equal(points$umis, unname(umis[round(points$rank)]))
  expect_false(is.unsorted(-points$umis))
  expect_gt(nrow(points), 50L)
  expect_lte(nrow(points), 200L)
  expect_true(all(points$called >= 0 & points$called <= 1))
  expect_equal(points$rank[1L], 1)
  first <- order(-Matrix::colSums(calls$counts), method = "radix")[1L]
  expect_equal(points$called[1L], as.numeric(!calls$cells$is_unassigned[first]))
  expect_match(plot_knee(assign_guides(small_screen()$counts))$labels$subtitle, "cells without guide UMIs not shown")
})

test_that("cells per guide are ranked, and the controls of the table are marked", {
  calls <- assign_guides(small_screen()$counts)
  guides <- data.frame(guide_id = rev(rownames(calls$counts)), type = rep(c("non-targeting", "targeting"), c(3, 7)))
  points <- plot_cells_per_guide(calls, guides)$data
  n <- Matrix::rowSums(calls$assigned)
  expect_equal(points$cells, unname(n[points$guide]))
  expect_equal(points$cells[order(points$rank)], unname(sort(n, decreasing = TRUE)))
  expect_setequal(points$guide[grepl("controls", points$what)], paste0("guide-", 8:10))
  # By target, as cell_columns() tells controls; and without a table nothing is marked.
  targets <- data.frame(guide_id = rownames(calls$counts), target = c("NT", rep("A", 9)))
  expect_message(plot <- plot_cells_per_guide(calls, targets), class = "kaichi_message_choice")
  expect_identical(plot$data$guide[grepl("controls", plot$data$what)], "guide-1")
  expect_identical(plot_cells_per_guide(calls, targets, control = "A")$data$guide[1L], "guide-1")
  expect_false(any(grepl("controls", plot_cells_per_guide(calls)$data$what)))

  # Thousands of guides: each kind from 0 to 1 of its own.
  many <- assign_guides(simulate_guides("easy", n_cells = 2000, n_guides = 1200)$counts, "umi")
  guides <- data.frame(guide_id = rownames(many$counts), type = rep(c("non-targeting", "targeting"), c(200, 1000)))
  points <- plot_cells_per_guide(many, guides)$data
  for (kind in split(points, points$what)) {
    expect_equal(kind$rank[order(kind$rank)], (seq_len(nrow(kind)) - 0.5) / nrow(kind))
    expect_false(is.unsorted(-kind$cells[order(kind$rank)]))
  }
})

test_that("the confidence of the calls is counted by UMIs", {
  calls <- assign_guides(small_screen()$counts, "poisson")
  bars <- plot_confidence(calls)$data
  from <- c(1, 2, 5, 10, 50, Inf)
  cut_at <- c(0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999, Inf)
  for (k in seq_len(nrow(bars))) {
    least <- as.numeric(sub("[^0-9].*", "", as.character(bars$umis[k])))
    umi_range <- match(least, from)
    sure <- as.integer(bars$sure[k])
    in_umis <- calls$pairs$umi_count >= least & calls$pairs$umi_count < from[umi_range + 1L]
    confidence <- calls$pairs$assignment_confidence
    expect_equal(bars$share[k], mean((confidence >= cut_at[sure] & confidence < cut_at[sure + 1L])[in_umis]))
  }
  expect_equal(sum(bars$Freq), nrow(calls$pairs))
})

test_that("called and other pairs are counted by UMIs", {
  calls <- assign_guides(small_screen()$counts, "poisson")
  bars <- plot_signal(calls)$data
  counts <- as.matrix(calls$counts)
  called <- as.matrix(calls$assigned) == 1
  for (k in seq_len(nrow(bars))) {
    of <- if (grepl("^not", bars$what[k])) !called else called
    expect_equal(bars$pairs[k], sum(counts[of] > bars$low[k] & counts[of] <= bars$high[k] & counts[of] > 0))
  }
  expect_equal(sum(bars$pairs), sum(counts > 0))
})

test_that("guides that meet are counted against chance", {
  calls <- assign_guides(simulate_guides("dual_guide", n_cells = 500, n_guides = 12)$counts)
  met <- guides_met(calls)
  assigned <- as.matrix(calls$assigned)
  naive <- list()
  for (a in 1:11) for (b in (a + 1):12) {
    both <- sum(assigned[a, ] & assigned[b, ])
    if (both > 0) naive[[length(naive) + 1L]] <- c(a, b, both, sum(assigned[a, ]) * sum(assigned[b, ]) / 500)
  }
  naive <- as.data.frame(do.call(rbind, naive))
  naive <- naive[order(naive$V2, naive$V1), ]
  expect_equal(met, stats::setNames(naive, c("a", "b", "observed", "expected")), ignore_attr = TRUE)
  # Both guides of a construct are far above chance, and are named.
  plot <- plot_guide_pairs(calls, label = 2)
  named <- plot$layers[[3L]]$data
  expect_identical(nrow(named), 2L)
  expect_true(all(named$b == named$a + 1L & named$observed > 3 * named$expected))
  tiles <- met_tiles(met)
  expect_equal(sum(tiles$pairs), nrow(met))
  expect_drawn(plot_guide_pairs(assign_guides(simulate_guides("high_moi", n_cells = 400, n_guides = 60)$counts, "umi")))
})

test_that("labels of pairs cover neither points nor each other", {
  # All six pairs of four guides, in places as near to each other as they come.
  drawn <- data.frame(expected = c(10, 10.2, 10.4, 12, 12, 14), observed = c(200, 210, 190, 205, 300, 206))
  drawn$name <- paste0("guide_", 1:6, " + guide_", 7)
  placed <- label_places(drawn, drawn)
  expect_gt(nrow(placed), 2L)
  # Inches of a picture of 6 by 4, whose panel takes about 5.4 by 2.8.
  x <- function(v) 5.4 * (0.05 + log10(v / 10) / log10(1.4)) / 1.1
  y <- function(v) 2.8 * (0.05 + log10(v) / log10(300)) / 1.17
  text <- lapply(seq_len(nrow(placed)), function(k) {
    width <- 0.06 * nchar(placed$name[k])
    c(x(placed$expected[k]) - placed$hjust[k] * width + c(0, width), y(placed$observed[k]) - placed$vjust[k] * 0.1 + c(0, 0.1))
  })
  for (box in text) {
    expect_false(any(x(drawn$expected) > box[1] & x(drawn$expected) < box[2] & y(drawn$observed) > box[3] & y(drawn$observed) < box[4]))
  }
  for (pair in utils::combn(text, 2L, simplify = FALSE)) {
    a <- pair[[1L]]
    b <- pair[[2L]]
    expect_false(a[1] < b[2] && b[1] < a[2] && a[3] < b[4] && b[3] < a[4])
  }
  # Where points are everywhere there is no room.
  crowd <- expand.grid(expected = 10^seq(0, 1, 0.02), observed = 10^seq(0, 1, 0.02))
  expect_identical(nrow(label_places(cbind(crowd[1:3, ], name = "a + b"), crowd)), 0L)
})

test_that("bad arguments are errors that say what to give", {
  calls <- assign_guides(small_screen()$counts, "umi")
  for (picture in pictures) expect_error(picture(list()), class = "kaichi_error_argument")
  expect_snapshot({
    error_text("argument", plot_knee(calls$cells))
    error_text("argument", plot_guide_pairs(calls, label = -1))
    error_text("argument", plot_cells_per_guide(calls, control = "NT"))
    error_text("file", plot_cells_per_guide(calls, "guides.csv"))
    error_text("argument", plot_model_agreement(calls))
  })
})
