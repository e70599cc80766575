// htm's standalone file: Preact and its hooks, as far as the page uses them.
declare module 'htm/preact/standalone' {
  export type Child = h.JSX.Element | string | number | boolean | null | undefined | readonly Child[];
  export type Setter<S> = (next: S | ((last: S) => S)) => void;

  type Optional<Names extends string, Value> = Readonly<Partial<Record<Names, Value>>>;
  type Handler<E, T> = (event: E & { readonly currentTarget: T }) => unknown;

  type Texts =
    | 'autocomplete'
    | 'class'
    | 'd'
    | 'id'
    | 'name'
    | 'pattern'
    | 'placeholder'
    | 'role'
    | 'scope'
    | 'title'
    | 'type'
    | 'value'
    | 'viewBox';

  /** Of an element in JSX. Names with a hyphen are never checked. */
  export type Attributes<T> = Optional<Texts, string> &
    Optional<'colspan' | 'cx' | 'cy' | 'height' | 'max' | 'r' | 'tabindex' | 'width', number> &
    Optional<'checked' | 'disabled' | 'required' | 'spellcheck', boolean> &
    Optional<'onBlur' | 'onChange' | 'onClose' | 'onFocus' | 'onInput', Handler<Event, T>> &
    Optional<'onClick' | 'onMouseEnter' | 'onMouseLeave', Handler<MouseEvent, T>> &
    Optional<'onKeyDown', Handler<KeyboardEvent, T>> &
    Optional<'onSubmit', Handler<SubmitEvent, T>> &
    Optional<'style', Readonly<Record<string, string>>> &
    Optional<'ref', { current: T | null }> &
    Optional<'key', string | number> &
    Optional<'children', Child>;

  type Html = { [Tag in keyof HTMLElementTagNameMap]: Attributes<HTMLElementTagNameMap[Tag]> };
  type Svg = { [Tag in 'circle' | 'path' | 'svg']: Attributes<SVGElementTagNameMap[Tag]> };

  export function h(type: unknown, attributes: object | null, ...children: readonly Child[]): h.JSX.Element;
  export namespace h.JSX {
    interface Element {
      readonly key: unknown;
    }
    interface IntrinsicElements extends Html, Svg {}
    interface IntrinsicAttributes {
      readonly key?: string | number;
    }
    interface ElementChildrenAttribute {
      readonly children: unknown;
    }
  }

  export function render(tree: Child, place: Element): void;
  export function useState<S>(): [S | undefined, Setter<S | undefined>];
  export function useState<S>(initial: S): [S, Setter<S>];
  export function useRef<T>(initial: T): { current: T };
  export function useMemo<T>(make: () => T, inputs: readonly unknown[]): T;
  export function useCallback<F>(callback: F, inputs: readonly unknown[]): F;
  /** The effect may return what undoes it. */
  export function useEffect(effect: () => unknown, inputs: readonly unknown[]): void;
  export function useLayoutEffect(effect: () => unknown, inputs: readonly unknown[]): void;
}
