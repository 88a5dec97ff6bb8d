# Pictures of the cells: guides per cell, and guide UMIs per cell.

#' Draw the guides per cell
#'
#' Cells by the number of guides called in them, beside the Poisson numbers that the multiplicity of infection (MOI) predicts.
#' More cells with several guides than that are doublets or ambient calls; more without any, cells without a construct or missed
#' calls. A screen selected for cells with a construct has fewer without.
#'
#' @param calls A `guide_calls` of [assign_guides()] or [decide_guides()]; or a SingleCellExperiment, SummarizedExperiment or
#'   Seurat object with calls, see [attached_calls()].
#' @return A ggplot. The MOI is that of [summary.guide_calls]: the expected one where the model has posteriors of guides, else
#'   the mean number of called guides.
#' @section Errors:
#'   `kaichi_error_argument` for other objects; `kaichi_error_package` without ggplot2.
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"))
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_guides_per_cell(calls)
#' @export
plot_guides_per_cell <- function(calls) {
  calls <- pictured_calls(calls)
  n_guides <- calls$cells$n_guides_detected
  of <- estimated_moi(calls)
  most <- max(1L, n_guides)
  observed <- data.frame(guides = 0:most, cells = tabulate(n_guides + 1L, most + 1L))
  chance <- data.frame(guides = 0:most, cells = length(n_guides) * stats::dpois(0:most, of$moi))
  label <- sprintf("Poisson at MOI %.2f", of$moi)
  ggplot2::ggplot() +
    ggplot2::geom_col(ggplot2::aes(.data$guides, .data$cells, fill = "called"), observed, width = 0.8) +
    ggplot2::geom_line(ggplot2::aes(.data$guides, .data$cells, colour = label), chance, linetype = "31", linewidth = 0.6) +
    ggplot2::geom_point(ggplot2::aes(.data$guides, .data$cells, colour = label), chance, size = if (most > 30L) 1 else 2.2) +
    ggplot2::scale_fill_manual(values = c(called = picture_colours[["called"]]), labels = "cells") +
    ggplot2::scale_colour_manual(values = stats::setNames(picture_colours[["chance"]], label)) +
    ggplot2::scale_x_continuous("guides called in a cell", breaks = whole_breaks(most)) +
    ggplot2::scale_y_continuous("cells", labels = big_labels, expand = ggplot2::expansion(c(0, 0.05))) +
    ggplot2::labs(title = "Guides per cell", subtitle = paste0("model ", model_words(calls), "\nMOI: ", of$words)) +
    picture_theme()
}

estimated_moi <- function(calls) {
  fits <- calls$fits
  called <- mean(calls$cells$n_guides_detected)
  # As summary() has it, whose table of guides is not needed here.
  expected <- if (
    is.null(fits$guide_id) || is.null(fits$expected_cells)
  ) NA_real_ else sum(fits$expected_cells) / nrow(calls$cells)
  if (is.na(expected)) return(list(moi = called, words = sprintf("%.2f called guides per cell", called)))
  list(moi = expected, words = sprintf("%.2f expected by the posteriors, %.2f called", expected, called))
}

whole_breaks <- function(most) {
  steps <- c(1, 2, 5) * 10^rep(0:6, each = 3L)
  seq(0, most, by = steps[which(most / steps <= 12)[1L]])
}

#' Draw the guide UMIs of the cells, ranked
#'
#' The knee plot of cells by all their guide UMIs, coloured by the share of cells with a call. Cells without a call at the left
#' are missed or ambiguous, calls at the far right rest on few UMIs.
#'
#' @inheritParams plot_guides_per_cell
#' @return A ggplot with one point for each of about 200 ranges of ranks; both axes are logarithmic. Cells without any guide
#'   UMI have no place there and are counted in the subtitle.
#' @inheritSection plot_guides_per_cell Errors
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"))
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_knee(calls)
#' @export
plot_knee <- function(calls) {
  calls <- pictured_calls(calls)
  umis <- Matrix::colSums(calls$counts)
  order <- order(-umis, method = "radix")
  order <- order[umis[order] > 0]
  n <- length(order)
  points <- data.frame(rank = numeric(), umis = numeric(), called = numeric())
  if (n > 0L) {
    last <- unique(round(10^seq(0, log10(n), length.out = 200L)))
    last[length(last)] <- n
    called <- cumsum(calls$cells$n_guides_detected[order] > 0L)
    in_range <- diff(c(0, last))
    points <- data.frame(
      rank = last - (in_range - 1) / 2, umis = umis[order][round(last - (in_range - 1) / 2)],
      called = diff(c(0, called[last])) / in_range
    )
  }
  ggplot2::ggplot(points, ggplot2::aes(.data$rank, .data$umis)) +
    ggplot2::geom_line(colour = "grey70") +
    ggplot2::geom_point(ggplot2::aes(colour = .data$called), size = 1.8) +
    ggplot2::scale_colour_viridis_c(
      name = "cells with a call", limits = c(0, 1), labels = percent_labels, end = 0.92
    ) +
    scale_log10("x", "rank of the cell") +
    scale_log10("y", "guide UMIs of the cell") +
    ggplot2::labs(
      title = "Guide UMIs of the cells, ranked",
      subtitle = paste0(
        "model ", model_words(calls),
        if (n < length(umis)) paste0("\n", count_of(length(umis) - n, "cell"), " without guide UMIs not shown")
      )
    ) +
    picture_theme() +
    bar_legend()
}

percent_labels <- function(x) ifelse(is.na(x), NA, paste0(format(100 * x, trim = TRUE), " %"))
