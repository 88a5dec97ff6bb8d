# Pictures of the called (cell, guide) pairs: their confidence and their UMIs.

#' Draw the confidence of the calls
#'
#' How sure the calls of one, few and many UMIs are: the shares of calls in ranges of confidence.
#'
#' @inheritParams plot_guides_per_cell
#' @return A ggplot with a bar for each range of UMIs that has calls. Of an object with calls, only the first guide of each
#'   cell has a confidence.
#' @inheritSection plot_guides_per_cell Errors
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"), "neg_binomial")
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_confidence(calls)
#' @export
plot_confidence <- function(calls) {
  calls <- pictured_calls(calls)
  confidence <- calls$pairs$assignment_confidence
  known <- which(!is.na(confidence))
  umis <- findInterval(calls$pairs$umi_count[known], c(1, 2, 5, 10, 50))
  sure <- findInterval(confidence[known], confidence_from)
  n <- as.data.frame(table(umis = factor(umis, 1:5), sure = factor(sure, 1:7)))
  n$umis <- as.integer(n$umis)
  total <- tabulate(umis, 5L)
  n$share <- n$Freq / total[n$umis]
  n <- n[n$Freq > 0L, ]
  labels <- sprintf("%s\n(%s)", c("1", "2 to 4", "5 to 9", "10 to 49", "50 or more"), big(total))
  n$umis <- factor(labels[n$umis], labels[total > 0L])
  n$sure <- factor(confidence_ranges[n$sure], confidence_ranges)
  what <- switch(
    find_model(calls$model)$confidence,
    posterior = "confidence\n(posterior\nprobability)", "1" = "confidence\n(1: the model\ndecides by itself)",
    "confidence\n(share of the cell's\nguide UMIs)"
  )
  ggplot2::ggplot(n, ggplot2::aes(.data$umis, .data$share, fill = .data$sure)) +
    ggplot2::geom_col(width = 0.75) +
    # Doubt is dark: it is what one looks for.
    ggplot2::scale_fill_viridis_d(name = what, option = "cividis", guide = ggplot2::guide_legend(reverse = TRUE)) +
    ggplot2::scale_y_continuous("calls", labels = percent_labels, expand = ggplot2::expansion(c(0, 0.02))) +
    ggplot2::labs(
      x = "UMIs of the called guide in the cell (number of calls)", title = "Confidence of the calls",
      subtitle = paste0(
        "model ", model_words(calls),
        if (length(known) < length(confidence)) paste0(
          "\n", count_of(length(confidence) - length(known), "call"), " without a confidence not shown"
        )
      )
    ) +
    picture_theme() +
    ggplot2::theme(
      legend.position = "right", legend.title = ggplot2::element_text(), panel.grid.major.x = ggplot2::element_blank()
    )
}

confidence_from <- c(0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
confidence_ranges <- c("below 0.5", "0.5 to 0.8", "0.8 to 0.9", "0.9 to 0.95", "0.95 to 0.99", "0.99 to 0.999", "0.999 or more")

#' Draw the UMIs of called and other pairs
#'
#' The (cell, guide) pairs with counts by their UMIs: those called below those left. Where both have many pairs of the same
#' count, the count alone does not tell them apart.
#'
#' @inheritParams plot_guides_per_cell
#' @return A ggplot. Pairs are counted in bins of UMIs that widen from 5 on; both axes are on the scale of log(1 + x).
#' @inheritSection plot_guides_per_cell Errors
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"))
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_signal(calls)
#' @export
plot_signal <- function(calls) {
  calls <- pictured_calls(calls)
  umi <- calls$counts@x
  bins <- umi_bins(max(umi, 0))
  all <- tabulate(bin_of(umi, bins), nrow(bins))
  called <- tabulate(bin_of(called_pairs(calls)$umi, bins), nrow(bins))
  # No pair with a count has none.
  keep <- bins$high > 0
  names <- sprintf("%s (%s)", c("not called", "called"), c(big(sum(all - called)), big(sum(called))))
  bars <- data.frame(
    umi = bin_middle(bins)[keep], low = bins$low[keep], high = bins$high[keep], pairs = c((all - called)[keep], called[keep]),
    what = factor(rep(names, each = sum(keep)), names)
  )
  colours <- stats::setNames(c("grey60", picture_colours[["called"]]), names)
  ggplot2::ggplot(bars) +
    ggplot2::geom_rect(
      ggplot2::aes(xmin = .data$low + 0.55, xmax = .data$high + 0.45, ymin = 0, ymax = .data$pairs, fill = .data$what),
      show.legend = FALSE
    ) +
    ggplot2::facet_wrap(ggplot2::vars(.data$what), ncol = 1L) +
    ggplot2::scale_fill_manual(values = colours) +
    scale_log1p("x", "UMIs of the guide in the cell", limits = c(0.5, max(bins$high) + 0.5)) +
    scale_log1p("y", "(cell, guide) pairs", expand = ggplot2::expansion(c(0, 0.05))) +
    ggplot2::labs(title = "UMIs of called and other pairs", subtitle = paste("model", model_words(calls))) +
    picture_theme()
}
