"""Keras' Adam and AdamW with TensorFlow's fused kernel: one pass over the weights a step, where Keras makes a dozen.

The arithmetic is the same but for the order of rounding. `python -m benchmarks.training --only switches` has what it
saves.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba 2015)."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> Any:
        """Changes a variable by its gradient; on several devices as Keras does, the kernel knows only one."""
        if self._distribution_strategy.num_replicas_in_sync > 1:
            return super().update_step(gradient, variable, learning_rate)
        index, step = self._get_variable_index(variable), tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )


class FusedAdamW(FusedAdam, keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019): Adam with decoupled weight decay."""
