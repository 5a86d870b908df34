// Form fields: a label, a hint, and the manager's refusal at the field it is about.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { ApiError } from "../api/client";

interface FieldProps {
  label: string;
  hint?: ComponentChildren;
  error?: string | null | undefined;
}

interface TextProps extends FieldProps {
  value: string;
  onValue: (value: string) => void;
  type?: "text" | "password" | "search" | "datetime-local" | "number";
  required?: boolean;
  autocomplete?: string;
  placeholder?: string;
  /** More than one: a text of several lines. */
  rows?: number;
  code?: boolean;
}

export function TextField({ label, hint, error, value, onValue, type = "text", rows = 1, required, autocomplete, placeholder, code }: TextProps) {
  const id = useId();
  const common = {
    id,
    value,
    required,
    placeholder,
    class: code ? "code" : undefined,
    spellcheck: false,
    "aria-invalid": error ? true : undefined,
    "aria-describedby": described(id, hint, error),
  };
  const read = (event: { currentTarget: HTMLInputElement | HTMLTextAreaElement }) => onValue(event.currentTarget.value);
  return (
    <FieldFrame id={id} label={label} hint={hint} error={error} required={required}>
      {rows > 1 ? (
        <textarea {...common} rows={rows} onInput={read} />
      ) : (
        <input {...common} type={type as "text"} autocomplete={autocomplete ?? "off"} onInput={read} />
      )}
    </FieldFrame>
  );
}

interface SelectProps extends FieldProps {
  value: string;
  onValue: (value: string) => void;
  options: readonly { value: string; label: string }[];
}

export function SelectField({ label, hint, error, value, onValue, options }: SelectProps) {
  const id = useId();
  return (
    <FieldFrame id={id} label={label} hint={hint} error={error}>
      <select
        id={id}
        value={value}
        aria-invalid={error ? true : undefined}
        aria-describedby={described(id, hint, error)}
        onChange={(event) => onValue(event.currentTarget.value)}
      >
        {options.map((option) => (
          <option key={option.value} value={option.value}>
            {option.label}
          </option>
        ))}
      </select>
    </FieldFrame>
  );
}

export function CheckField({ label, hint, error, checked, onChecked }: FieldProps & { checked: boolean; onChecked: (checked: boolean) => void }) {
  const id = useId();
  return (
    <div class={error ? "field check invalid" : "field check"}>
      <input
        id={id}
        type="checkbox"
        checked={checked}
        aria-invalid={error ? true : undefined}
        aria-describedby={described(id, hint, error)}
        onChange={(event) => onChecked(event.currentTarget.checked)}
      />
      <label for={id}>{label}</label>
      <Notes id={id} hint={hint} error={error} />
    </div>
  );
}

/** Several of a few. */
export function ChoiceField<V extends string | number>({ label, hint, error, options, chosen, onChosen }: FieldProps & { options: readonly { value: V; label: string }[]; chosen: readonly V[]; onChosen: (chosen: V[]) => void }) {
  const id = useId();
  const toggle = (value: V, on: boolean) => onChosen(on ? [...chosen, value] : chosen.filter((one) => one !== value));
  return (
    <fieldset class={error ? "field invalid" : "field"} aria-describedby={described(id, hint, error)}>
      <legend>{label}</legend>
      <div class="choices">
        {options.map((option) => (
          <label key={option.value}>
            <input type="checkbox" checked={chosen.includes(option.value)} onChange={(event) => toggle(option.value, event.currentTarget.checked)} />
            {option.label}
          </label>
        ))}
      </div>
      <Notes id={id} hint={hint} error={error} />
    </fieldset>
  );
}

function FieldFrame({ id, label, hint, error, required, children }: FieldProps & { id: string; required?: boolean | undefined; children: ComponentChildren }) {
  return (
    <div class={error ? "field invalid" : "field"}>
      <label for={id}>
        {label}
        {required && <span class="required"> (required)</span>}
      </label>
      {children}
      <Notes id={id} hint={hint} error={error} />
    </div>
  );
}

function Notes({ id, hint, error }: { id: string; hint?: ComponentChildren; error?: string | null | undefined }) {
  return (
    <>
      {error && (
        <p class="field-error" id={`${id}-error`}>
          {error}
        </p>
      )}
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </>
  );
}

function described(id: string, hint: ComponentChildren, error: string | null | undefined): string | undefined {
  const ids = [error ? `${id}-error` : "", hint ? `${id}-hint` : ""].filter(Boolean);
  return ids.length > 0 ? ids.join(" ") : undefined;
}

export interface FormProps {
  submit: string;
  /** Throws what the manager refused. */
  onSubmit: () => Promise<void>;
  /** The fields of this form, as the manager names them; a refusal of another one stands above the form. */
  fields: readonly string[];
  children: (errorOf: (field: string) => string | null) => ComponentChildren;
  extra?: ComponentChildren;
  label: string;
}

/** A form that is sent once at a time and shows each refusal where it belongs. */
export function Form({ submit, onSubmit, fields, children, extra, label }: FormProps) {
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const placed = error?.field ? closest(error.field, fields) : null;

  useEffect(() => {
    if (!error) return;
    const invalid = form.current?.querySelector<HTMLElement>('[aria-invalid="true"]');
    (invalid ?? form.current?.querySelector<HTMLElement>(".form-error"))?.focus();
  }, [error]);

  const send = async (event: Event) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setError(null);
    try {
      await onSubmit();
    } catch (failure) {
      setError(failure instanceof ApiError ? failure : new ApiError(0, String(failure)));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form ref={form} onSubmit={send} aria-label={label} noValidate={false}>
      {error && !placed && (
        <p class="notice bad form-error" role="alert" tabIndex={-1}>
          {error.message}
        </p>
      )}
      {children((field) => (placed === field && error ? error.message : null))}
      <div class="form-end">
        <button type="submit" class="button primary" aria-disabled={busy}>
          {busy ? "Sending …" : submit}
        </button>
        {extra}
      </div>
    </form>
  );
}

/** `config.shaper.peers.weight` is shown at `config.shaper.peers`, or at `config`, whichever the form has. */
export function closest(field: string, fields: readonly string[]): string | null {
  for (let name = field; name; name = name.slice(0, Math.max(0, name.lastIndexOf(".")))) {
    if (fields.includes(name)) return name;
  }
  return null;
}
