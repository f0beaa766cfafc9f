"""Training on a GPU: the Trainer whose steps are a DeviceStep's. Checkpoints are those of any device."""

from refattn.errors import DeviceError, TrainingError
from refattn.ops.cuda import toolchain
from refattn.training.cuda_stepper import DeviceStep
from refattn.training.train import Trainer


class DeviceTrainer(Trainer):
    """A Trainer that hands the batches of an epoch to the device, and reads losses and parameters when it is over."""

    capture = True  # whether steps are captured as graphs

    def __init__(self, out, checkpoint, dataset, rows, device):
        super().__init__(out, checkpoint, dataset, rows, device)
        self.device_step = None

    def _begin(self, batches):
        if self.device_step is None:  # now, because a resumed run has its state by now
            self.device_step = self._new_step()
        step, first = self.adam.step, self.place["batch"]
        rates = [self.schedule.rate(step - first + number) for number in range(len(batches))]
        self.batches, self.begun_at = batches, first
        self.device_step.begin(batches, first, step, rates)

    def _new_step(self):
        sizes = len(self.rows[0]), self.n_batches
        try:
            return DeviceStep(
                self.config, self.ops, self.loader, self.stepper.label, self.params, self.adam, *sizes, self.capture
            )
        except toolchain.OutOfMemory:
            raise DeviceError("the data set does not fit into the memory of the GPU; train on --device cpu") from None

    def _step(self, rows, run):
        self.device_step.run(rows)
        self.adam.step += 1
        self.place["batch"] += 1

    def _settle(self):
        loss, absolute, broken = self.device_step.pull(self.params, self.adam)
        if broken >= 0:
            names = ", ".join(self.stepper.ids[self.batches[broken]])
            error = f"the loss is not finite in one of the structures {names}"
            raise TrainingError(self._explain(error, f"epoch {self.place['epoch']}, batch {broken + 1}"))
        self.place["loss"] += loss
        self.place["absolute"] += absolute
